"""The predictions table of findings that occur together: a label and a probability column for each finding.

A CSV file with a header and one row an image: `file`, and for each finding NAME a column `label_NAME`, 1, 0 or empty
where nobody knows, and a column `probability_NAME` or `logit_NAME`. `split`, `group` and `schema_version` may be
missing; other columns are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.class_probabilities import LOGIT, PROBABILITY, ClassProbabilities, number_columns
from cxr_jax.runs.predicted_images import named_images, require_columns
from cxr_jax.runs.table import Table, is_missing
from cxr_jax.vocabulary import FINDINGS, Kind

LABEL = "label_"
"""What the names of the columns of labels begin with; the name of the finding follows."""

_LABELS = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0}

# by how much a probability that is written with few digits may miss the sigmoid of its logit
_AGREEMENT = 1e-3


@dataclass(frozen=True)
class FindingPredictions(ClassProbabilities):
    """Predictions of K findings, of which an image may show any number.

    `label` is float64 [N, K]: 1 present, 0 absent, NaN where nobody knows. A probability is the sigmoid of its logit.
    """

    KIND: ClassVar[Kind] = FINDINGS
    LABEL_TYPE: ClassVar[type] = np.float64

    def _check(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError("there is no finding, or two have one name")
        if self.label.shape != self.probabilities.shape:
            raise ValueError(f"labels are {self.label.shape}, and probabilities {self.probabilities.shape}")
        if not (np.isnan(self.label) | np.isin(self.label, (0, 1))).all():
            raise ValueError("a label is none of 1, 0 and NaN")
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all():
            raise ValueError("a probability is not a number from 0 to 1")

    @staticmethod
    def activated(logits: np.ndarray) -> np.ndarray:
        """Returns the sigmoids, float64 [N, K], of logits [N, K]."""
        return sigmoid_of(logits)

    def asked(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images of which it is known whether they show a finding, a mask [N], and whether, bool."""
        column = self.label[:, self.classes.index(name)]
        rows = ~np.isnan(column)
        return rows, column[rows] == 1

    def _label_of(self, columns: Sequence[int]) -> np.ndarray:
        return self.label[:, columns]

    def label_cells(self) -> tuple[tuple[str, ...], Iterator[tuple[str, ...]]]:
        """Returns the columns `label_NAME`, and for each image 1, 0 or nothing."""
        names = tuple(LABEL + name for name in self.classes)
        return names, (tuple("" if np.isnan(label) else f"{label:.0f}" for label in row) for row in self.label)


def sigmoid_of(logits: np.ndarray) -> np.ndarray:
    """Returns the sigmoids, float64 of the shape of `logits`, without overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def findings_of(header: list[str]) -> tuple[str, ...]:
    """Returns the findings that a table of these columns is of, in their order; empty for a table of another kind."""
    if "label" in header:
        return ()
    return tuple(name.removeprefix(LABEL) for name in header if name.startswith(LABEL))


def read_findings(table: Table, findings: tuple[str, ...], *, require_file: bool) -> FindingPredictions:
    """Returns the predictions of a table with a column of labels for each finding; UserError for a wrong cell."""
    if require_file:
        require_columns(table, ["file"])
    images = named_images(table, require_file=require_file)
    logits = number_columns(table, LOGIT, findings, cells.finite)
    stated = number_columns(table, PROBABILITY, findings, cells.probability)
    if logits is None and stated is None:
        missing = [name for name in findings if not {LOGIT + name, PROBABILITY + name} & set(table.header)]
        which = missing[0] if missing else findings[0]
        raise UserError(
            f"{table.path} has a column {LABEL}{which}, and no numbers in {PROBABILITY}{which} or {LOGIT}{which}: each "
            "finding needs both"
        )
    if logits is not None and stated is not None:
        _check_agreement(table, findings, stated, sigmoid_of(logits))
    label = np.array([table.column(LABEL + name, _label) for name in findings]).T
    probabilities = sigmoid_of(logits) if stated is None else stated
    return FindingPredictions(**images, classes=findings, label=label, logits=logits, probabilities=probabilities)


def _label(cell: str) -> float:
    """Returns 1, 0, or NaN for a cell that says nothing."""
    if is_missing(cell):
        return float("nan")
    if cell.lower() not in _LABELS:
        raise ValueError(f"{cell!r} is none of 1 (present), 0 (absent) and empty (unknown)")
    return _LABELS[cell.lower()]


def _check_agreement(table: Table, findings: tuple[str, ...], stated: np.ndarray, of_logits: np.ndarray) -> None:
    """Raises UserError for a probability that is not the sigmoid of the logit beside it."""
    wrong = np.argwhere(np.abs(stated - of_logits) > _AGREEMENT)
    if len(wrong):
        row, column = (int(place) for place in wrong[0])
        raise table.error(
            row,
            PROBABILITY + findings[column],
            f"{stated[row, column]:.6g} is not the sigmoid of the logit ({of_logits[row, column]:.6g}): correct one, "
            "or leave the logits out",
        )
