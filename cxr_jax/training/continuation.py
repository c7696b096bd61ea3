"""A run that begins with the network of another one, to learn on from new data."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.checkpoints import read_newest, saved_steps
from cxr_jax.config.schema import Config, DataConfig
from cxr_jax.errors import UserError
from cxr_jax.inference.restore import chosen_checkpoint
from cxr_jax.models.state import ArrayDict, pack_network, unpack_network
from cxr_jax.runs.continued import Averaged, Continued, is_continued, read_continued
from cxr_jax.runs.description import NetworkDescription, read_description
from cxr_jax.runs.ensemble import is_ensemble, relative_path
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.records import from_json, to_json
from cxr_jax.runs.trained_on import learned_from, lineage, trained_on
from cxr_jax.training.network import Network
from cxr_jax.training.processes import ProcessGroup
from cxr_jax.training.saving import LAST
from cxr_jax.training.state import restore_network
from cxr_jax.vocabulary import FINDINGS, Kind


def continue_from(
    origin: RunFolder,
    config: Config,
    classes: tuple[str, ...],
    kind: Kind,
    place: Path,
    others: Sequence[RunFolder] = (),
) -> Continued:
    """Returns what a run at `place`, of `config` and data of `classes`, is to know of the runs that it begins with.

    Raises:
        UserError: one of them has no intact checkpoint, is an ensemble or a probe, or has another network, other
            classes or images of another size; or one of `others` has nothing in common with `origin`.
    """
    found, *of_others = [_fitting(run, config, classes, kind) for run in (origin, *others)]
    which = chosen_checkpoint(origin)
    checkpoint = read_newest(origin.checkpoints / which)
    averaged_with = tuple(_averaged(run, place) for run in others)
    begun = _begun_as(origin, found, checkpoint.sha256)
    for run, description, averaged in zip(others, of_others, averaged_with, strict=True):
        if run.path.resolve() == origin.path.resolve():
            raise UserError(f"{origin.path} is named by --from and by --average-with: name another run by one of them")
        if not begun & _begun_as(run, description, averaged.sha256):
            raise UserError(
                f"{run.path} and {origin.path} began with different networks, whose mean is worth nothing: average "
                "runs that learned on from one run, or that began with the same weights"
            )
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
        averaged_with=averaged_with,
    )


def _begun_as(run: RunFolder, found: NetworkDescription, sha256: str) -> set[str]:
    """Returns hashes of a network, which is `sha256`, and of what it began with: who shares one descends alike."""
    hashes = {found.weights_sha256, sha256}
    if is_continued(run):
        hashes.add(read_continued(run).sha256)
    return hashes - {""}


def _averaged(run: RunFolder, place: Path) -> Averaged:
    which = chosen_checkpoint(run)
    checkpoint = read_newest(run.checkpoints / which)
    return Averaged(
        relative_path(run.path, place),
        which,
        checkpoint.step,
        checkpoint.sha256,
        tuple(dict.fromkeys(name for name, _ in learned_from(run))),
    )


def _fitting(origin: RunFolder, config: Config, classes: tuple[str, ...], kind: Kind) -> NetworkDescription:
    """Returns what a run says of its network; UserError as `continue_from` if that is none for `config`."""
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
    return found


@dataclass(frozen=True)
class Beginning:
    """With which network a run begins: with a new one, or with that of another run."""

    origin: RunFolder | None = None  # named by whoever starts the run
    others: tuple[RunFolder, ...] = ()  # whose networks are averaged with that of the origin
    recorded: Continued | None = None  # of a run that goes on
    has_state: bool = False  # a run that goes on has saved its own network

    @classmethod
    def at(cls, origin: str, others: Sequence[str] = ()) -> Beginning:
        """Returns that of a new run; UserError if there is no run at one of the places, or one is named twice."""
        if others and not origin:
            raise UserError("--average-with needs the run whose network comes first: name it by --from")
        places = [Path(other).resolve() for other in others]
        if twice := [other for place, other in zip(places, others, strict=True) if places.count(place) > 1]:
            raise UserError(f"{twice[0]} is named twice by --average-with, and each run counts once: leave one out")
        return cls(RunFolder.open(origin), tuple(map(RunFolder.open, others))) if origin else cls()

    @property
    def learns_on(self) -> bool:
        """True if it begins with the network of another run."""
        return self.origin is not None or self.recorded is not None

    @property
    def begun_with(self) -> tuple[RunFolder, ...]:
        """The runs that were named for it, whose networks a new run begins with."""
        return () if self.origin is None else (self.origin, *self.others)

    def continued(
        self, config: Config, classes: tuple[str, ...], kind: Kind, place: Path, fingerprints: Collection[str]
    ) -> Continued | None:
        """Returns what the run at `place` keeps of that; None for a new network.

        `fingerprints` are those of the data of the run, mixed in ones too. UserError as `continue_from`, or if
        validation images of the run are such as one of the networks learned from.
        """
        if self.recorded is not None or self.origin is None:
            return self.recorded
        found = continue_from(self.origin, config, classes, kind, place, self.others)
        require_same_cuts(self.begun_with, config, fingerprints)
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
        others = self.others or continued.averaged_runs(run)
        networks = [_as_it_was(origin, continued, network)]
        networks += [_as_it_was(*pair, network) for pair in zip(others, continued.averaged_with, strict=True)]
        params, batch_stats = unpack_network(networks[0] if len(networks) == 1 else _mean(networks))
        return dataclasses.replace(
            expected,
            params={name: params[name] for name in network.params},
            batch_stats={name: batch_stats[name] for name in network.batch_stats},
        )


def _mean(networks: Sequence[ArrayDict]) -> ArrayDict:
    """Returns the mean of values and statistics (Wortsman et al. 2022, Robust fine-tuning of zero-shot models)."""
    return {name: sum(network[name] for network in networks) / len(networks) for name in networks[0]}


def _as_it_was(run: RunFolder, recorded: Continued | Averaged, network: Network) -> ArrayDict:
    """Returns the network of `run`, shaped like `network`; UserError if it is not what was `recorded`."""
    checkpoint = read_newest(run.checkpoints / recorded.checkpoint)
    if checkpoint.sha256 != recorded.sha256:
        raise UserError(
            f"{run.path} has another network than when this run began with it, by its sha256: put that run back, or "
            "start a new one"
        )
    return pack_network(*restore_network(checkpoint.arrays, network.params, network.batch_stats, str(run.checkpoints)))


def resumed_beginning(run: RunFolder, origin: str, others: Sequence[str], group: ProcessGroup) -> Beginning:
    """Returns with which network `run`, which goes on, had begun; only the first of the processes reads its folder.

    Raises:
        UserError: `origin` or `others` name other runs than those which it had begun with.
    """
    told = None
    if group.writes and is_continued(run):
        recorded = read_continued(run)
        begun = [recorded.origin(run).path, *(earlier.path for earlier in recorded.averaged_runs(run))]
        named = [Path(name).resolve() for name in ([origin] if origin else []) + [*others]]
        if named and named != [path.resolve() for path in begun]:
            raise UserError(
                f"{run.path} began with the network of {' and '.join(map(str, begun))}: leave --from and "
                "--average-with out, or start a new run"
            )
        told = [to_json(recorded), bool(saved_steps(run.checkpoints / LAST))]
    elif group.writes and (origin or others):
        raise UserError(
            f"{run.path} did not begin with the network of another run: leave --from and --average-with out"
        )
    told = group.exchange(told)[0]
    return Beginning() if told is None else Beginning(recorded=from_json(Continued, told[0]), has_state=told[1])


def require_same_cuts(begun_with: Sequence[RunFolder], config: Config, fingerprints: Collection[str]) -> None:
    """Raises UserError if data that these runs, or those that they began with, were trained on would be cut otherwise.

    Their validation images would then be images that the network learned from. `fingerprints` are those of the data
    that `config` cuts.
    """
    for run in begun_with:
        for earlier in lineage(run):
            if set(fingerprints) & {fingerprint for _, fingerprint in trained_on(earlier)}:
                _require_same_cut(earlier, config)


def _require_same_cut(origin: RunFolder, config: Config) -> None:
    table = origin.read_config().get("data", {})
    # of the fields that decide the cut; what is mixed in is cut by the same
    for name in (name for name in config.data.cut() if name != "replay"):
        theirs, ours = table.get(name, getattr(DataConfig, name)), getattr(config.data, name)
        if theirs != ours:
            raise UserError(
                f"{origin.path} was trained on the same data with data.{name} = {theirs}, and here it is {ours}: "
                "validation images would be such as the network learned from, so set it alike"
            )
