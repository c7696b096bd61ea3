"""`cxr-jax train CONFIG`: train one network as a config says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.errors import EXIT_USAGE, UserError

SUMMARY = "train a network as a config says"


@dataclass(frozen=True)
class Options:
    """Where the run goes; every field of the config is an option too, such as --optimizer.learning-rate 0.02."""

    out: str = ""  # folder of the run; by default runs/ and the name of the config
    resume: bool = False  # go on with the run in that folder, from its last checkpoint


def main(arguments: list[str]) -> None:
    """Train the config that `arguments` name; UserError for every mistake in it or in what it needs."""
    config_path, options, overrides = _parse(arguments)
    from cxr_jax.config.loading import load_config, write_config

    config = load_config(config_path, overrides)
    run_path = Path(options.out or Path("runs") / Path(config_path).stem)

    from rich.console import Console

    from cxr_jax.data.cache import load_split
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.inference.description import write_description
    from cxr_jax.reporting.live import Observers, TensorBoardObserver, TerminalObserver, track_in_terminal
    from cxr_jax.runs.environment import write_environment
    from cxr_jax.runs.files import atomic_path, write_json
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.training.loop import Trainer
    from cxr_jax.training.network import build_network

    console = Console()
    run = RunFolder.open(run_path) if options.resume else RunFolder.unused(run_path)
    prepared = PreparedData.open(config.data.dataset)
    if options.resume:
        _require_same(run, config, prepared.fingerprint)
    network = build_network(config.model, config.training.seed)
    track = track_in_terminal(console)
    train_set = load_split(prepared, config.data, "train", track=track)
    validation_set = load_split(prepared, config.data, "val", track=track)
    observers = Observers(TerminalObserver(console), TensorBoardObserver(run))
    trainer = Trainer(config, network, train_set, validation_set, run, observers)
    if not options.resume:
        devices = [f"{device.platform} {device.device_kind}" for device in trainer.devices]
        # whole or not at all: one that was killed half-way could neither be resumed nor begun again
        with atomic_path(run_path) as unfinished:
            begun = RunFolder.create(unfinished)
            write_environment(begun, devices=devices, data_fingerprint=prepared.fingerprint)
            write_json(begun.data_card, prepared.card)
            write_description(begun, _describe(config, network))
            write_config(config, begun.config)
    console.print(
        f"{config.model.name} on {len(train_set)} images, validated on {len(validation_set)}; run {run.path}",
        soft_wrap=True,
    )
    if network.fresh:
        console.print(
            f"The weights have no classifier for these classes: {', '.join(network.fresh)} start afresh", soft_wrap=True
        )
    with observers:
        reason = trainer.train(resume=options.resume)
    ended = "patience ran out" if reason == "patience" else "all epochs done"
    console.print(f"Training ended, {ended}. Next: cxr-jax evaluate {run.path}", soft_wrap=True)


def _parse(arguments: list[str]) -> tuple[str, Options, list[str]]:
    """The config's path, the options of the command, and the overrides of the config."""
    from cxr_jax.config.command_line import parse, parse_known

    prog = "cxr-jax train CONFIG"
    if not arguments or arguments[0].startswith("-"):
        parse(Options, arguments, prog=prog, description=SUMMARY)
        raise UserError("name a config first: cxr-jax train CONFIG, such as configs/quickstart.toml", EXIT_USAGE)
    wants_help = {"-h", "--help"} & set(arguments)
    options, overrides = parse_known(Options, [entry for entry in arguments[1:] if entry not in wants_help], prog=prog)
    if wants_help:
        print("--out FOLDER names the run (default: runs/ and the config's name), --resume goes on with it.\n")
        overrides = ["--help"]
    return arguments[0], options, overrides


def _describe(config: object, network: object) -> object:
    from cxr_jax.inference.description import NetworkDescription
    from cxr_jax.models.pretrained import find_weights
    from cxr_jax.vocabulary import CLASS_NAMES

    weights = find_weights(config.model.weights, config.model.name) if config.model.weights else None
    return NetworkDescription(
        architecture=config.model.name,
        classes=CLASS_NAMES,
        image_size=config.data.image_size,
        resize=config.data.resize,
        interpolation=config.data.interpolation,
        mean=network.mean,
        std=network.std,
        weights=weights.name if weights else "",
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest() if weights else "",
        parameters=sum(value.size for value in network.params.values()),
    )


def _require_same(run: object, config: object, fingerprint: str) -> None:
    """Raise UserError if the run to be resumed was started with another config or other data."""
    from cxr_jax.config.loading import load_config
    from cxr_jax.runs.folder import read_json

    if load_config(run.config) != config:
        raise UserError(
            f"{run.path} was started with another config than this; go on with cxr-jax train {run.config} "
            f"--out {run.path} --resume, or start a new run"
        )
    if read_json(run.environment)["data_fingerprint"] != fingerprint:
        raise UserError(f"the prepared data is not what {run.path} was started with; prepare the same source again")
