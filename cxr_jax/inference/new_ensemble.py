"""A new ensemble: whether runs can be its members, and its folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from cxr_jax.config.loading import format_sections, load_config
from cxr_jax.config.schema import Config
from cxr_jax.data.prepared import from_any_folder
from cxr_jax.devices import names_of
from cxr_jax.errors import UserError
from cxr_jax.inference.restore import TrainedModel, chosen_checkpoint, restore_run
from cxr_jax.runs.ensemble import EnsembleRecord, Member, is_ensemble, relative_path, write_ensemble
from cxr_jax.runs.environment import write_environment
from cxr_jax.runs.files import atomic_path, write_json, write_text
from cxr_jax.runs.folder import RunFolder, read_json

SECTIONS = ("data", "operating_point", "report")
"""Sections of config.toml of an ensemble: what its members agree on. An ensemble is not trained."""

COPIES = "members"
"""Folder of the copies of the members, where copies are asked for."""


@dataclass(frozen=True)
class _Candidate:
    """A run that is to be a member."""

    run: RunFolder
    model: TrainedModel
    config: Config

    @property
    def fingerprint(self) -> str | None:
        """Of the data that it was trained on."""
        return read_json(self.run.environment).get("data_fingerprint")

    def agreed(self) -> Iterator[tuple[str, Any]]:
        """Yields what all members must have in common, by name."""
        yield "the fingerprint of the data", self.fingerprint
        yield "the list of classes", ", ".join(self.model.description.classes)
        yield "the kind of classes", self.model.description.kind
        yield from ((f"data.{name}", value) for name, value in self.config.data.cut().items())
        yield "data.region", self.config.data.region
        yield "data.clarify", self.config.data.clarify
        yield from ((f"operating_point.{name}", value) for name, value in asdict(self.config.operating_point).items())


def make_ensemble(
    runs: Sequence[RunFolder],
    path: Path,
    *,
    data: dict[str, Any] | None = None,
    copy: bool = False,
    fill: Callable[[RunFolder], None] = lambda run: None,
) -> RunFolder:
    """Makes the folder of an ensemble of `runs` at `path`, whole or not at all, and returns it.

    Args:
        runs: two or more trained runs.
        path: a new or empty folder.
        data: fields of the data that the ensemble has otherwise than its members; without them all must have the
            validation split of the first.
        copy: the ensemble gets copies of its members, and refers to those.
        fill: writes what else belongs into the folder, before it has its name.

    Raises:
        UserError: the runs cannot be members of one ensemble, or the folder is not free.
    """
    _require_different(runs)
    RunFolder.unused(path)
    candidates = [_Candidate(run, restore_run(run), load_config(run.config)) for run in runs]
    _require_agreement(candidates, apart_from=tuple(f"data.{name}" for name in data or ()))
    first = candidates[0]
    config = dataclasses.replace(
        first.config,
        data=dataclasses.replace(first.config.data, dataset=from_any_folder(first.config.data.dataset), **(data or {})),
    )
    with atomic_path(path) as unfinished:
        ensemble = RunFolder.create(unfinished)
        places = [run.path for run in runs]
        if copy:
            places = [
                copy_network(entry.run, unfinished / COPIES / f"{number:02d}")
                for number, entry in enumerate(candidates)
            ]
        # the folder still has another name, at the same place
        members = tuple(
            _member(entry, relative_path(place, unfinished if copy else path))
            for entry, place in zip(candidates, places, strict=True)
        )
        write_ensemble(ensemble, EnsembleRecord(members))
        write_text(ensemble.config, format_sections(config, SECTIONS))
        write_environment(
            ensemble,
            devices=names_of(jax.devices()),
            data_fingerprint=first.fingerprint or "",
        )
        write_json(ensemble.data_card, read_json(first.run.data_card))
        fill(ensemble)
    return RunFolder(path)


def _require_different(runs: Sequence[RunFolder]) -> None:
    """Raises UserError if a run is named twice, or is an ensemble itself."""
    paths = [run.path.resolve() for run in runs]
    for run, path in zip(runs, paths, strict=True):
        if paths.count(path) > 1:
            raise UserError(f"{run.path} is named twice: name every member of the ensemble once")
        if is_ensemble(run):
            raise UserError(f"{run.path} is an ensemble itself: name its members in place of it")


def _require_agreement(candidates: Sequence[_Candidate], apart_from: Sequence[str] = ()) -> None:
    """Raises UserError that names the first thing in which two of them differ, `apart_from` what they may."""
    first = candidates[0]
    for other in candidates[1:]:
        ours, theirs = dict(first.agreed()), dict(other.agreed())
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            if name not in apart_from and ours.get(name) != theirs.get(name):
                raise UserError(
                    f"{first.run.path} and {other.run.path} cannot be members of one ensemble: {name} is "
                    f"{ours.get(name, 'not set')} for the first and {theirs.get(name, 'not set')} for the second"
                )


def _member(candidate: _Candidate, path: str) -> Member:
    description = candidate.model.description
    return Member(
        run=path,
        network=description.title,
        image_size=description.image_size,
        parameters=description.parameters,
        checkpoint=chosen_checkpoint(candidate.run),
        step=candidate.model.step,
        sha256=candidate.model.checkpoint_sha256,
    )


def copy_network(run: RunFolder, folder: Path) -> Path:
    """Copies what is needed of a run to use its network into `folder`, which is made, and returns it."""
    folder.mkdir(parents=True)
    for path in (run.config, run.environment, run.data_card, run.network, run.metrics):
        if path.is_file():
            shutil.copy(path, folder / path.name)
    which = chosen_checkpoint(run)
    shutil.copytree(run.checkpoints / which, RunFolder(folder).checkpoints / which)
    return folder
