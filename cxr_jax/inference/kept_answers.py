"""What a network has answered in a measurement that takes long, kept on the disk until it ends.

An interrupted measurement then goes on where it was.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cxr_jax.runs.files import atomic_path, remove

_MEASURED = "measured"


class Answers(NamedTuple):
    """What a network says of images."""

    logits: Float[np.ndarray, "N K"]
    distances: Float[np.ndarray, " N"] | None  # from the training images; None where the network tells none


class KeptAnswers:
    """Answers by name, in one file beside the record that is made of them."""

    def __init__(self, path: Path, measured: str) -> None:
        """Opens `path`, which need not exist; what it holds of anything but `measured` is forgotten."""
        self._path, self._measured = path, measured
        self._arrays: dict[str, np.ndarray] = {}
        try:
            with np.load(path, allow_pickle=False) as stored:
                if str(stored[_MEASURED]) == measured:
                    self._arrays = {name: stored[name] for name in stored.files if name != _MEASURED}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # there is none, or it was damaged: what it held is measured again
            pass

    def of(self, name: str) -> Answers | None:
        """Returns the answers of this name; None where there are none."""
        logits = self._arrays.get(f"{name}.logits")
        return None if logits is None else Answers(logits, self._arrays.get(f"{name}.distances"))

    def add(self, name: str, answers: Answers) -> None:
        """Adds answers and writes all; UserError if the file cannot be written."""
        self._arrays[f"{name}.logits"] = answers.logits
        if answers.distances is not None:
            self._arrays[f"{name}.distances"] = answers.distances
        with atomic_path(self._path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **{_MEASURED: np.array(self._measured)}, **self._arrays)

    def forget(self) -> None:
        """Removes the file."""
        remove(self._path)
