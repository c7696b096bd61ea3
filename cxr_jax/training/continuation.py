"""A run that begins with the network of another one, to learn on from new data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.checkpoints import read_newest, saved_steps
from cxr_jax.config.schema import Config, DataConfig
from cxr_jax.errors import UserError
from cxr_jax.inference.restore import chosen_checkpoint
from cxr_jax.runs.continued import Continued, is_continued, read_continued
from cxr_jax.runs.description import read_description
from cxr_jax.runs.ensemble import is_ensemble, relative_path
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.records import from_json, to_json
from cxr_jax.training.network import Network
from cxr_jax.training.processes import ProcessGroup
from cxr_jax.training.saving import LAST
from cxr_jax.training.state import restore_network
from cxr_jax.vocabulary import FINDINGS, Kind


def continue_from(origin: RunFolder, config: Config, classes: tuple[str, ...], kind: Kind, place: Path) -> Continued:
    """Returns what a run at `place`, of `config` and data of `classes`, is to know of the run that it learns on from.

    Raises:
        UserError: that run has no intact checkpoint, is an ensemble or a probe, or has another network, other classes
            or images of another size.
    """
    if is_ensemble(origin):
        raise UserError(f"{origin.path} is an ensemble, and one network learns on: name one of its members by --from")
    found = read_description(origin)
    if found.until:
        raise UserError(f"{origin.path} is a probe, a network cut behind {found.until}: name a trained run by --from")
    if found.architecture != config.model.name:
        raise UserError(
            f"{origin.path} is {found.architecture}, and model.name is {config.model.name}: a network learns on as it "
            f"is, so set model.name to {found.architecture}"
        )
    for name in ("transition", "pooling", "pooling_sharpness"):
        theirs, ours = getattr(found, name), getattr(config.model, name)
        counts = name != "pooling_sharpness" or found.pooling == "log_sum_exp"
        if counts and theirs != ours:
            raise UserError(
                f"{origin.path} was trained with model.{name} = {theirs}, and here it is {ours}: a network learns on "
                "as it is, so set it alike"
            )
    if (found.classes, found.kind) != (classes, kind):
        theirs, ours = (
            f"{', '.join(names)}{' (findings)' if of == FINDINGS else ''}"
            for names, of in ((found.classes, found.kind), (classes, kind))
        )
        raise UserError(
            f"{origin.path} knows the classes {theirs}, and those of {config.data.dataset} are {ours}: learn on from "
            "data of the same classes, in the same order"
        )
    for name in ("image_size", "resize", "interpolation", "clarify"):
        theirs, ours = getattr(found, name), getattr(config.data, name)
        if theirs != ours:
            raise UserError(
                f"{origin.path} was trained with data.{name} = {theirs}, and here it is {ours}: the network expects "
                "images as it learned from them, so set it alike"
            )
    if found.denoiser or config.model.denoiser:
        raise UserError("--from is for networks without a denoiser, which each run trains anew: leave model.denoiser 0")
    table = origin.read_config().get("data", {})
    shown = {(config.data.region, config.data.crop), (table.get("region", "whole"), table.get("crop", "none"))}
    if shown != {("whole", "none")}:
        raise UserError("--from is for networks of whole images, with data.region whole and data.crop none")
    which = chosen_checkpoint(origin)
    checkpoint = read_newest(origin.checkpoints / which)
    return Continued(
        run=relative_path(origin.path, place),
        network=found.architecture,
        checkpoint=which,
        step=checkpoint.step,
        sha256=checkpoint.sha256,
        mean=found.mean,
        std=found.std,
        weights=found.weights,
        weights_sha256=found.weights_sha256,
        data=str(origin.configured("data", "dataset")),
        data_fingerprint=read_json(origin.environment).get("data_fingerprint") or "",
    )


@dataclass(frozen=True)
class Beginning:
    """With which network a run begins: with a new one, or with that of another run."""

    origin: RunFolder | None = None  # named by whoever starts the run
    recorded: Continued | None = None  # of a run that goes on
    has_state: bool = False  # a run that goes on has saved its own network

    @classmethod
    def at(cls, origin: str) -> Beginning:
        """Returns that of a new run; UserError if there is no run at `origin`."""
        return cls(RunFolder.open(origin)) if origin else cls()

    @property
    def learns_on(self) -> bool:
        """True if it begins with the network of another run."""
        return self.origin is not None or self.recorded is not None

    def continued(
        self, config: Config, classes: tuple[str, ...], kind: Kind, place: Path, replayed: str = ""
    ) -> Continued | None:
        """Returns what the run at `place` keeps of that; None for a new network.

        `replayed` is the fingerprint of the data that are mixed in. UserError as `continue_from`.
        """
        if self.recorded is not None or self.origin is None:
            return self.recorded
        found = continue_from(self.origin, config, classes, kind, place)
        if replayed and replayed == found.data_fingerprint:
            _require_same_cut(self.origin, config)
        return found

    def network(self, network: Network, continued: Continued, run: RunFolder) -> Network:
        """Returns `network` as `run` begins with it; one that has saved its own needs no values of the origin.

        Raises:
            UserError: the origin is not there, or its network is not what it was when the run began.
        """
        expected = dataclasses.replace(network, mean=continued.mean, std=continued.std)
        if self.has_state:
            return expected
        origin = self.origin or continued.origin(run)
        checkpoint = read_newest(origin.checkpoints / continued.checkpoint)
        if checkpoint.sha256 != continued.sha256:
            raise UserError(
                f"{origin.path} has another network than when this run began with it, by its sha256: put that run "
                "back, or start a new one"
            )
        where = str(origin.checkpoints)
        params, batch_stats = restore_network(checkpoint.arrays, network.params, network.batch_stats, where)
        return dataclasses.replace(
            expected,
            params={name: params[name] for name in network.params},
            batch_stats={name: batch_stats[name] for name in network.batch_stats},
        )


def resumed_beginning(run: RunFolder, origin: str, group: ProcessGroup) -> Beginning:
    """Returns with which network `run`, which goes on, had begun; only the first of the processes reads its folder.

    Raises:
        UserError: `origin` names another run than that which it had begun with.
    """
    told = None
    if group.writes and is_continued(run):
        recorded = read_continued(run)
        if origin and Path(origin).resolve() != recorded.origin(run).path.resolve():
            raise UserError(
                f"{run.path} began with the network of {recorded.origin(run).path}: leave --from out, or start a new "
                "run"
            )
        told = [to_json(recorded), bool(saved_steps(run.checkpoints / LAST))]
    elif group.writes and origin:
        raise UserError(f"{run.path} did not begin with the network of another run: leave --from out")
    told = group.exchange(told)[0]
    return Beginning() if told is None else Beginning(recorded=from_json(Continued, told[0]), has_state=told[1])


def _require_same_cut(origin: RunFolder, config: Config) -> None:
    """Raises UserError if data to be replayed, which the origin was trained on, would be cut otherwise than there.

    Their validation images would then be images that the network learned from.
    """
    table = origin.read_config().get("data", {})
    for name in ("validation", "validation_fraction", "split_seed"):
        theirs, ours = table.get(name, getattr(DataConfig, name)), getattr(config.data, name)
        if theirs != ours:
            raise UserError(
                f"data.replay.dataset is what {origin.path} was trained on with data.{name} = {theirs}, and here it is "
                f"{ours}: its validation images would be such as the network learned from, so set it alike"
            )
