"""`cxr-jax train CONFIG`: train one network as a config says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cxr_jax.config.command_line import Option, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed

if TYPE_CHECKING:
    from cxr_jax.config.loading import Given
    from cxr_jax.config.schema import Config
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.images.image_set import ImageSet
    from cxr_jax.runs.continued import Continued
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.training.network import Network
    from cxr_jax.training.plan import Plan
    from cxr_jax.training.processes import ProcessGroup
    from cxr_jax.training.progress import EndReason

T = TypeVar("T")

SUMMARY = "train a network as a config says"


@dataclass(frozen=True)
class Options:
    """Where the run goes; every field of the config is an option too, such as --optimizer.learning-rate 0.02."""

    out: Annotated[str, Option("FOLDER")] = ""  # of the run; by default runs/ and the name of the config
    # trained run whose network learns on from the config's data, in all its phases and with a new optimizer
    origin: Annotated[str, Option("RUN", name="from")] = ""
    # runs that learned on from that run, or that began with the same weights: training begins with the mean of all
    average_with: Annotated[tuple[str, ...], Option("RUN")] = ()
    resume: bool = False  # go on with the run in that folder, from its last checkpoint


def main(arguments: list[str]) -> None:
    """Trains the config that `arguments` name; UserError for every mistake in it or in what it needs."""
    terminal = terminal_for(arguments)
    with terminal.waiting(f"Training {' '.join(arguments[:1])}: reading the config, loading jax"):
        config_path, given = config_given(
            arguments, Options, terminal.say, command="train", summary=SUMMARY, example="quickstart"
        )
        from cxr_jax.training.kernels_ahead import begin_kernels

        begin_kernels(given.config)
        from cxr_jax.training import run  # noqa: F401

    options = given.options
    run_path = Path(options.out) if options.out else default_folder(config_path)
    train_config(
        given.config,
        run_path,
        resume=options.resume,
        changes=given.changes,
        origin=options.origin,
        average_with=options.average_with,
    )


def terminal_for(arguments: Sequence[str]) -> Terminal:
    """Returns where a command on a config prints: nowhere while it is asked for help alone."""
    asks_for_help = not arguments or arguments[0].startswith("-") or {"-h", "--help"} & set(arguments)
    return Terminal(quiet=bool(asks_for_help))


def default_folder(config_path: Path) -> Path:
    """Returns where the run of a config goes unless somebody says otherwise."""
    return Path("runs") / config_path.stem


def train_config(
    config: Config,
    run_path: Path,
    *,
    resume: bool = False,
    changes: Collection[str] = (),
    quiet: bool = False,
    origin: str = "",
    average_with: Sequence[str] = (),
) -> EndReason:
    """Trains a network, alone or as one of several processes, and tells how it goes unless `quiet`.

    Args:
        config: what is trained on what.
        run_path: folder of the run; a new one, or with `resume` that of a run which was started with this config.
        resume: go on from the last checkpoint.
        changes: dotted keys that were given beside a config's file; those without effect are refused.
        quiet: show nothing.
        origin: folder of the run whose network learns on; empty for a network that begins anew.
        average_with: folders of runs whose networks are averaged with that one before training begins.

    Returns why training ended.

    Raises:
        UserError: a mistake in the config or in what it needs; or a signal asked training to stop, and it was saved.
    """
    from cxr_jax.config.effect import refuse_generator, refuse_options_of_several
    from cxr_jax.training.processes import joined

    if config.probe.is_asked_for:
        raise UserError(
            f'probe.classifier is "{config.probe.classifier}", and a probe trains nothing: cxr-jax probe with the same '
            "config fits it"
        )
    refuse_generator(config)
    with joined(config.parallel) as group:
        if group.world_size == 1 and config.parallel.world_size == 0:
            refuse_options_of_several(changes)
        return _train(config, run_path, resume, group, quiet, origin, average_with)


def _train(
    config: Config,
    run_path: Path,
    resume: bool,
    group: ProcessGroup,
    quiet: bool,
    origin: str = "",
    average_with: Sequence[str] = (),
) -> EndReason:
    """Trains in this process, as one of `group`; only the first of them touches the run folder."""
    from cxr_jax.config.overrides import values_of
    from cxr_jax.data.filling import told_filling
    from cxr_jax.data.learned_images import require_not_learned
    from cxr_jax.data.prepared import PreparedData, require_masks_of_run
    from cxr_jax.data.replay import open_replayed, told_replay
    from cxr_jax.data.run_folders import require_same, write_origin
    from cxr_jax.data.split_loading import load_split
    from cxr_jax.devices import names_of
    from cxr_jax.reporting.live import Observers, TensorBoardObserver, TerminalObserver
    from cxr_jax.runs.continued import write_continued
    from cxr_jax.runs.environment import record_activations, recorded_precision
    from cxr_jax.runs.files import atomic_path
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import held_for_training
    from cxr_jax.runs.metrics_log import is_finished
    from cxr_jax.training.continuation import Beginning, resumed_beginning
    from cxr_jax.training.denoising import STEPS, with_trained_denoiser
    from cxr_jax.training.network import build_network, describe
    from cxr_jax.training.plan import plan_run
    from cxr_jax.training.run import train
    from cxr_jax.training.saving import has_state

    terminal = Terminal(quiet=quiet or not group.writes)
    asked = {"--out": str(run_path), "--resume": resume, "--from": origin, "--average-with": " ".join(average_with)}
    group.require_same("what they are to do", asked)
    run = RunFolder(run_path)
    if group.writes:
        run = RunFolder.open(run_path) if resume else RunFolder.unused(run_path)
    beginning = resumed_beginning(run, origin, average_with, group) if resume else Beginning.at(origin, average_with)
    if beginning.learns_on and config.model.weights:
        terminal.say("Note on the config: model.weights has no effect, because a trained network learns on")
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=""))
    computed = values_of(dataclasses.replace(config, parallel=config.parallel.anywhere()))
    group.require_same("config", json.loads(json.dumps(computed)))
    prepared = PreparedData.open(config.data.dataset)
    if resume and group.writes:
        require_same(run, config, prepared)
        require_masks_of_run(run, prepared)
    fingerprints = [prepared.fingerprint]
    if config.data.replay.dataset:
        fingerprints.append(open_replayed(prepared, config.data).fingerprint)
    continued = beginning.continued(config, prepared.classes, prepared.kind, run_path, fingerprints)
    require_not_learned(beginning.begun_with, prepared, config.data, track=terminal.track)
    with terminal.waiting(f"Building {config.model.name}"):
        network = build_network(config.model, config.training.seed, classes=len(prepared.classes))
        if continued is not None:
            network = beginning.network(network, continued, run)
    group.require_same(
        "what they train on",
        {"the data's fingerprint": prepared.fingerprint, "the network's first values": network.fingerprint()},
    )
    train_set = load_split(prepared, config.data, "train", track=terminal.track, mapped=True)
    validation_set = load_split(prepared, config.data, "val", track=terminal.track, mapped=True)
    # a run that was killed before its first save begins again, and from the same denoiser
    if config.model.denoiser and not (resume and has_state(run.checkpoints, group)):
        with terminal.track("Training the denoiser", STEPS) as advance:
            network, told = with_trained_denoiser(
                network, train_set, config.training.seed, group, steps=STEPS, advance=advance
            )
        terminal.say(told)
    observers = Observers(*([TerminalObserver(terminal), TensorBoardObserver(run)] if group.writes else []))
    first = "; on a new machine the native kernels are compiled first" if network.has_native_kernels else ""
    with terminal.waiting(f"Planning the run{first}"):
        recorded = group.exchange(recorded_precision(run) if resume and group.writes else None)[0]
        plan = plan_run(config, network, train_set, validation_set, recorded)
    # each has found out by itself whether there is a compiler for the native kernels
    activations = plan.activations
    how = f"{activations.precision} by {activations.kernels}"
    group.require_same("how they compute", {"the precision": how})
    if group.writes and not resume:
        # whole or not at all: one that was killed half-way could neither be resumed nor begun again
        with atomic_path(run_path) as unfinished:
            description = describe(config, network, classes=prepared.classes, kind=prepared.kind)
            mixed_in = told_replay(config.data, train_set, validation_set)
            of_train = {} if mixed_in is None else {"replay": mixed_in}
            of_train |= told_filling(config.data, train_set, len(prepared.examples))
            if continued is not None:
                began = {"weights": continued.weights, "weights_sha256": continued.weights_sha256}
                description = dataclasses.replace(description, **began)
            made = write_origin(unfinished, config, description, prepared, names_of(plan.devices), of_train)
            if continued is not None:
                write_continued(made, continued)
            record_activations(made, activations.precision, activations.kernels, activations.why)
    for sentence in _told(plan, network, prepared, train_set, validation_set, run, continued):
        terminal.say(sentence)
    if group.world_size > 1:
        terminal.say(f"{group.world_size} processes with {len(plan.devices)} devices train together")
    with held_for_training(run) if group.writes else contextlib.nullcontext(), observers:
        if group.writes and resume and not is_finished(run.metrics):
            record_activations(run, activations.precision, activations.kernels, activations.why)
        reason = train(plan, network, train_set, validation_set, run, observers, group, resume=resume)
    if group.writes:
        _tell_end(terminal, run, config, reason)
    return reason


def _told(
    plan: Plan,
    network: Network,
    prepared: PreparedData,
    train_set: ImageSet,
    validation_set: ImageSet,
    run: RunFolder,
    continued: Continued | None,
) -> Iterator[str]:
    """Yields what a person should know before the first step."""
    from cxr_jax.config.effect import notes
    from cxr_jax.data.filling import told_added
    from cxr_jax.data.replay import told_visits
    from cxr_jax.data.split_loading import left_out_for_masks

    config = plan.config
    counts = f"{len(train_set)} images, validated on {len(validation_set)}"
    yield f"{config.model.name} on {counts}; run {as_typed(run.path)}"
    if continued is not None:
        origin = as_typed(continued.origin(run).path)
        yield f"It learns on from {origin}, step {continued.step:,}, which was trained on {continued.data}"
        if continued.averaged_with:
            others = " and ".join(as_typed(averaged.path) for averaged in continued.averaged_runs(run))
            yield f"It begins with the mean of that network and of {others}"
    if train_set.replay is not None:
        yield told_visits(config.data, train_set, validation_set)
    if added := told_added(config.data, train_set, len(prepared.examples)):
        yield added
    for note in prepared.card.get("image_notes", ()):
        yield f"Note on the images: {note}"
    for note in notes(config):
        yield f"Note on the config: {note}"
    if absent := left_out_for_masks(prepared, config.data, ("train", "val")):
        yield f"Note on the masks: {absent} of the images have none and are left out"
    if network.fresh:
        yield f"Not in the weights, so that they start afresh: {', '.join(network.fresh)}"


def _tell_end(terminal: Terminal, run: RunFolder, config: Config, reason: EndReason) -> None:
    """Prints what the run has reached, and how to go on."""
    from cxr_jax.reporting.live import validation_figures
    from cxr_jax.runs.metrics_log import best_validation

    terminal.say(f"Training ended, {'patience ran out' if reason == 'patience' else 'all epochs done'}.")
    best = best_validation(run.metrics)
    if best is not None:
        terminal.say(
            f"Best on validation by {config.validation.monitor}: {validation_figures(best)}, at step {best['step']}"
        )
    terminal.say(f"Next: {as_typed('cxr-jax', 'evaluate', run.path)}")


def config_given(
    arguments: list[str], options: type[T], tell: Callable[[str], None], *, command: str, summary: str, example: str
) -> tuple[Path, Given[T]]:
    """Returns the config's file, and what it and the options say; `tell` gets a sentence for each name of old.

    `command` takes a config as its first argument, such as `example`, and `summary` says what it does.
    """
    from cxr_jax.config.loading import load_with_options
    from cxr_jax.config.shipped import find_config

    prog = f"cxr-jax {command} CONFIG"
    if not arguments or arguments[0].startswith("-"):
        parse(options, arguments, prog=prog, description=described(prog, summary))
        raise UserError(
            f"name a config first, such as cxr-jax {command} {example}; cxr-jax configs lists them", EXIT_USAGE
        )
    path = find_config(arguments[0])
    return path, load_with_options(path, arguments[1:], options, prog=prog, description=summary, tell=tell)


def described(prog: str, summary: str) -> str:
    """Returns what the help of `prog`, a command that takes a config, says of it where no config is named."""
    more = "CONFIG is a TOML file, or a name that cxr-jax configs lists. Every field of it is an option too:"
    return f"{summary}\n\n{more}\n{prog} --help lists them."
