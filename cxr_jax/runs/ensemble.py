"""What an ensemble of runs is made of: ensemble.json in its folder, which refers to the folders of its members."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.records import fields_to_json, read_record

SCHEMA_VERSION = 1
"""Version of ensemble.json."""

COMBINATION = "mean of logits"
"""What an ensemble answers with."""


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, as it was when the ensemble was made.

    Attributes:
        run: path of its run folder, relative to the folder of the ensemble, with slashes.
        network: its architecture.
        image_size: side of the images that it sees, in pixels.
        parameters: how many it has.
        checkpoint: which state of the run it is, best or last.
        step: of training, at which that state was saved.
        sha256: of the arrays of that state.
    """

    run: str
    network: str
    image_size: int
    parameters: int
    checkpoint: str
    step: int
    sha256: str


@dataclass(frozen=True)
class EnsembleRecord:
    """The content of ensemble.json."""

    members: tuple[Member, ...]
    combination: str = COMBINATION

    @property
    def title(self) -> str:
        """What it is in a few words."""
        names = ", ".join(dict.fromkeys(member.network for member in self.members))
        return f"mean of {len(self.members)} networks ({names})"


def is_ensemble(run: RunFolder) -> bool:
    """Returns whether a folder is that of an ensemble, and not of a run that was trained."""
    return run.ensemble.is_file()


def write_ensemble(run: RunFolder, record: EnsembleRecord) -> None:
    """Writes ensemble.json; UserError as in `write_json`."""
    write_json(run.ensemble, {"schema_version": SCHEMA_VERSION, **fields_to_json(record)})


def read_ensemble(run: RunFolder) -> EnsembleRecord:
    """Reads ensemble.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    record = read_record(
        run.ensemble, EnsembleRecord, version=SCHEMA_VERSION, where="ensemble", advice="make the ensemble again"
    )
    if not record.members:
        raise UserError(f"{run.ensemble} is damaged (it names no member): make the ensemble again")
    return record


def members_of(run: RunFolder) -> list[RunFolder]:
    """Returns the run folders of the members of an ensemble; of a run that was trained, that run alone.

    Raises:
        UserError: a member is not where the ensemble says.
    """
    if not is_ensemble(run):
        return [run]
    return [member_folder(run, member) for member in read_ensemble(run).members]


def places_of(run: RunFolder) -> list[Path]:
    """Returns where the members of an ensemble should be, whether they are or not; of any other run, its path alone."""
    return [_place(run, member) for member in read_ensemble(run).members] if is_ensemble(run) else [run.path]


def first_network(run: RunFolder) -> Path:
    """Returns the first of `places_of`."""
    return places_of(run)[0]


def member_folder(run: RunFolder, member: Member) -> RunFolder:
    """Returns the run folder of one member of the ensemble `run`.

    Raises:
        UserError: it is not where the ensemble says.
    """
    path = _place(run, member)
    if not RunFolder(path).config.is_file():
        raise UserError(
            f"a member of the ensemble {run.path} is missing, there is no run at {path}: put it back there, or make "
            "the ensemble again"
        )
    return RunFolder.open(path)


def _place(run: RunFolder, member: Member) -> Path:
    return Path(os.path.normpath(run.path / PurePosixPath(member.run)))


def relative_path(member: Path, ensemble: Path) -> str:
    """Returns how the ensemble at `ensemble` refers to the run folder `member`."""
    return Path(os.path.relpath(member.resolve(), ensemble.resolve())).as_posix()
