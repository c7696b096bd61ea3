"""`cxr-jax probe CONFIG`: fit a linear classifier on features of a frozen network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cxr_jax.commands.train import config_given, default_folder, terminal_for
from cxr_jax.config.command_line import Option
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed

if TYPE_CHECKING:
    import jax
    import numpy as np

    from cxr_jax.config.schema import Config
    from cxr_jax.evaluation.linear_probe import LinearClassifier
    from cxr_jax.evaluation.probe_record import ProbeRecord
    from cxr_jax.images.image_set import ImageSet
    from cxr_jax.training.probe import FrozenNetwork

SUMMARY = "fit a linear classifier on features of a frozen network, as a config says"


@dataclass(frozen=True)
class Options:
    """Where the run goes; every field of the config is an option too, such as --probe.classifier svm."""

    out: Annotated[str, Option("FOLDER")] = ""  # of the run; by default runs/ and the name of the config


def main(arguments: list[str]) -> None:
    """Fits the probe of the config that `arguments` name, and leaves a run; UserError for every mistake in it.

    The run is there when all of it is: one that is killed leaves nothing.
    """
    terminal = terminal_for(arguments)
    with terminal.waiting(f"Probing {' '.join(arguments[:1])}: reading the config, loading jax"):
        path, given = config_given(
            arguments, Options, terminal.say, command="probe", summary=SUMMARY, example="kermany_xception"
        )
        if not given.config.probe.is_asked_for:
            raise UserError(
                f"{path} is of a network that is trained: {as_typed('cxr-jax', 'train', path)} does so, and "
                "--probe.classifier logistic (or svm) probes it",
                EXIT_USAGE,
            )
        from cxr_jax.training import probe  # noqa: F401
    _probe(given.config, Path(given.options.out or default_folder(path)), terminal)


def _probe(config: Config, out: Path, terminal: Terminal) -> None:
    from cxr_jax.config.effect import notes
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.data.run_folders import write_origin
    from cxr_jax.data.split_loading import load_split
    from cxr_jax.devices import choose_devices, names_of, require_divisible
    from cxr_jax.evaluation.linear_probe import require_balancing
    from cxr_jax.evaluation.probe_record import write_probe
    from cxr_jax.runs.files import atomic_path
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.training.network import describe
    from cxr_jax.training.probe import freeze, save_network, with_classifier

    began = time.perf_counter()
    RunFolder.unused(out)
    require_balancing(config.probe.balancing)
    prepared = PreparedData.open(config.data.dataset)
    devices = choose_devices(config.parallel.devices)
    require_divisible("training.evaluation_batch_size", config.training.evaluation_batch_size, devices)
    with terminal.waiting(f"Building {config.model.name}"):
        frozen = freeze(config, prepared.classes)
    train_set, validation_set = (
        load_split(prepared, config.data, split, track=terminal.track, mapped=True) for split in ("train", "val")
    )
    terminal.say(
        f"{frozen.channels} features of {config.model.name}, from {frozen.features}, of {len(train_set)} images; "
        f"validated on {len(validation_set)}"
    )
    for note in notes(config):
        terminal.say(f"Note on the config: {note}")
    features = _features(frozen, (train_set, validation_set), config, devices, terminal)
    classifiers, record = _fit(frozen, features[0], train_set, config, terminal)
    network, until = with_classifier(frozen, classifiers)
    figures = _validation_figures(classifiers, features[1], validation_set)
    with terminal.waiting(f"Writing {out}"), atomic_path(out) as unfinished:
        description = describe(config, network, until, classes=prepared.classes, kind=prepared.kind)
        run = write_origin(unfinished, config, description, prepared, names_of(devices))
        write_probe(run.probe, record)
        save_network(run, network, config.validation.monitor, figures, time.perf_counter() - began)
    _tell(terminal, out, record, figures)


def _features(
    frozen: FrozenNetwork,
    sets: tuple[ImageSet, ImageSet],
    config: Config,
    devices: list[jax.Device],
    terminal: Terminal,
) -> list[np.ndarray]:
    """Returns the features [N, C] of the images of train, and of validation."""
    from cxr_jax.training.probe import compile_features

    with terminal.waiting("Compiling the network"):
        program = compile_features(frozen, config, devices)
    network, found = frozen.until_features, []
    for images, split in zip(sets, ("train", "val"), strict=True):
        with terminal.track(f"Computing the features of {split}", len(images)) as advance:
            found.append(program.over(network.params, network.batch_stats, images.images, advance=advance))
    return found


def _fit(
    frozen: FrozenNetwork, features: np.ndarray, images: ImageSet, config: Config, terminal: Terminal
) -> tuple[tuple[LinearClassifier, ...], ProbeRecord]:
    """Returns the classifiers, and the record of how they were fitted."""
    from cxr_jax.evaluation.linear_probe import fit_finding_probes, fit_probe, fits_of
    from cxr_jax.evaluation.probe_record import ProbeRecord

    probe, of_findings = config.probe, images.labels.ndim == 2
    total = fits_of(probe.strengths, probe.folds) * (len(images.classes) if of_findings else 1)
    with terminal.track(f"Fitting, by cross-validation in {probe.folds} folds", total) as advance:
        how = {
            "kind": probe.classifier,
            "strengths": probe.strengths,
            "folds": probe.folds,
            "seed": config.training.seed,
            "balanced": config.loss.class_weights == "balanced",
            "balancing": probe.balancing,
            "advance": advance,
        }
        if of_findings:
            classifiers, findings = fit_finding_probes(features, images.labels, images.groups, images.classes, **how)
            fitted = {"strength": None, "scores": (), "converged": all(entry.converged for entry in findings)}
        else:
            fit = fit_probe(features, images.labels, images.groups, classes=images.classes, **how)
            classifiers, findings = fit.classifiers, ()
            fitted = {"strength": fit.strength, "scores": fit.scores, "converged": fit.converged}
    record = ProbeRecord(
        classifier=probe.classifier,
        features=frozen.features,
        channels=frozen.channels,
        images=len(images),
        groups=len(set(images.groups)),
        balancing=probe.balancing,
        findings=findings,
        **fitted,
    )
    return classifiers, record


def _validation_figures(
    classifiers: Sequence[LinearClassifier], features: np.ndarray, images: ImageSet
) -> dict[str, float]:
    from cxr_jax.evaluation.linear_probe import scores_of
    from cxr_jax.training.probe import HALVES
    from cxr_jax.training.validation import validation_figures

    scores = scores_of(classifiers, features)
    # of NORMAL and PNEUMONIA one score makes both logits
    halved = images.labels.ndim == 1 and len(classifiers) == 1
    return validation_figures(scores * HALVES if halved else scores, images.labels)


def _tell(terminal: Terminal, out: Path, record: ProbeRecord, figures: dict[str, float]) -> None:
    """Prints what every strength reached, what the probe reached on validation, and how to go on."""
    from rich.table import Table

    from cxr_jax.evaluation.numbers import with_deviation
    from cxr_jax.reporting.live import validation_figures

    if record.findings:
        table = Table(
            "finding", "images that show it", "known", "strength of the penalty", "ROC-AUC in cross-validation"
        )
        for entry in record.findings:
            area = with_deviation(entry.chosen.mean, entry.chosen.deviation, ".4f")
            table.add_row(entry.name, f"{entry.shown:,}", f"{entry.images:,}", f"{entry.strength:g}", area)
    else:
        table = Table("strength of the penalty", "ROC-AUC in cross-validation", "")
        for score in record.scores:
            chosen = "chosen" if score.strength == record.strength else ""
            table.add_row(f"{score.strength:g}", with_deviation(score.mean, score.deviation, ".4f"), chosen)
    terminal.show(table)
    if not record.converged:
        terminal.say("Note: scikit-learn gave up some fits before their end; stronger penalties end sooner")
    fits = record.findings or (record,)
    at_end = [fit for fit in fits if fit.strength in (fit.scores[0].strength, fit.scores[-1].strength)]
    if at_end and len(at_end[0].scores) > 1:
        of = f" for {', '.join(fit.name for fit in at_end)}" if record.findings else ""
        terminal.say(f"Note: the best strength is at the end of those tried{of}; try more by --probe.strengths")
    terminal.say(f"On validation: {validation_figures(figures)}; run {as_typed(out)}")
    terminal.say(f"Next: {as_typed('cxr-jax', 'evaluate', out)}")
