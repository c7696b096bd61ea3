"""From which trained run another learns on: continued.json in the folder of the latter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.records import fields_to_json, read_record

SCHEMA_VERSION = 1
"""Version of continued.json."""


@dataclass(frozen=True)
class Averaged:
    """A trained network whose values went into the mean that a run began with, as it was then.

    Attributes:
        run: path of the folder of the run that trained it, relative to the folder of the run that learns on.
        checkpoint: which state of that run it is, best or last.
        step: of training, at which that state was saved.
        sha256: of the arrays of that state.
        data: names of all data that it was trained on.
    """

    run: str
    checkpoint: str
    step: int
    sha256: str
    data: tuple[str, ...]


@dataclass(frozen=True)
class Continued:
    """The network that a run began with, as it was then.

    Attributes:
        run: path of the folder of the run that trained it, relative to the folder of the run that learns on.
        network: its architecture.
        checkpoint: which state of that run it is, best or last.
        step: of training, at which that state was saved.
        sha256: of the arrays of that state.
        mean: of the channels of the images that it expects, in [0, 1].
        std: likewise their standard deviation.
        weights: the file that it had begun with; empty for random weights.
        weights_sha256: of that file.
        data: name of the data that it was trained on.
        data_fingerprint: of those data.
        averaged_with: networks that began with it, or with the same weights: the run began with the mean of all.
    """

    run: str
    network: str
    checkpoint: str
    step: int
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str
    weights_sha256: str
    data: str
    data_fingerprint: str
    averaged_with: tuple[Averaged, ...] = ()

    def origin(self, run: RunFolder) -> RunFolder:
        """Returns the run that trained it, which may be there no more; `run` is the one that learns on."""
        return _run_at(run, self.run)

    def averaged_runs(self, run: RunFolder) -> list[RunFolder]:
        """Returns the runs of `averaged_with`, which may be there no more; `run` is the one that learns on."""
        return [_run_at(run, averaged.run) for averaged in self.averaged_with]


def _run_at(run: RunFolder, relative: str) -> RunFolder:
    return RunFolder(Path(os.path.normpath(run.path.resolve() / relative)))


def is_continued(run: RunFolder) -> bool:
    """Returns whether a run began with the network of another one."""
    return run.continued.is_file()


def write_continued(run: RunFolder, continued: Continued) -> None:
    """Writes continued.json; UserError as in `write_json`."""
    write_json(run.continued, {"schema_version": SCHEMA_VERSION, **fields_to_json(continued)})


def read_continued(run: RunFolder) -> Continued:
    """Reads continued.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    return read_record(run.continued, Continued, version=SCHEMA_VERSION, where="it", advice="train the run again")
