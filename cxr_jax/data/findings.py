"""Findings that occur together: how the labels of an image stand in one cell of a table, and as numbers.

A cell names the findings that are present, joined by bars, and those that nobody knows of, each with a question mark:
`Effusion|Mass?`. All others are absent. `No Finding` stands where nothing would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32

from cxr_jax.vocabulary import NO_FINDING

BETWEEN, UNKNOWN = "|", "?"

MISSING = math.nan
"""The label of a finding that nobody knows of: it carries no loss and is not judged."""


def finding_cell(labels: Sequence[float], names: Sequence[str]) -> str:
    """Returns the cell for the labels of an image, one for each of `names`: 1 present, 0 absent, NaN unknown."""
    told = [
        name + (UNKNOWN if math.isnan(label) else "")
        for label, name in zip(labels, names, strict=True)
        if math.isnan(label) or label > 0
    ]
    return BETWEEN.join(told) or NO_FINDING


def present_in(cell: str) -> tuple[str, ...]:
    """Returns what a cell says is present; of a class that excludes the others this is the class itself."""
    return tuple(name for name in cell.split(BETWEEN) if not name.endswith(UNKNOWN))


def unknown_in(cell: str) -> tuple[str, ...]:
    """Returns the findings that a cell says nobody knows of."""
    return tuple(name.removesuffix(UNKNOWN) for name in cell.split(BETWEEN) if name.endswith(UNKNOWN))


def only(cell: str, names: Iterable[str]) -> str:
    """Returns a cell with those of its findings that are among `names`."""
    kept = set(names)
    return BETWEEN.join(part for part in cell.split(BETWEEN) if part.removesuffix(UNKNOWN) in kept) or NO_FINDING


def finding_labels(cells: Iterable[str], names: Sequence[str]) -> Float32[np.ndarray, "N K"]:
    """Returns the labels that `cells` stand for, float32 [N, K]: 1 present, 0 absent, NaN unknown."""
    cells = list(cells)
    place = {name: index for index, name in enumerate(names)}
    labels = np.zeros((len(cells), len(names)), np.float32)
    for row, cell in enumerate(cells):
        for name in unknown_in(cell):
            labels[row, place[name]] = MISSING
        for name in present_in(cell):
            if name != NO_FINDING:
                labels[row, place[name]] = 1
    return labels
