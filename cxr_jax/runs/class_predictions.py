"""The predictions table of classes other than NORMAL and PNEUMONIA: one probability column for each class.

A CSV file with a header and one row an image: `file`, `label`, and for each class NAME a column `probability_NAME` or
`logit_NAME`, in the order of the labels. `split`, `group` and `schema_version` may be missing; other columns are
ignored. An image has exactly one class, and its probabilities add up to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.class_probabilities import LOGIT, PROBABILITY, ClassProbabilities, number_columns
from cxr_jax.runs.finding_predictions import findings_of, read_findings
from cxr_jax.runs.predicted_images import named_images, require_columns, write_rows
from cxr_jax.runs.predictions import Predictions, read_predictions, softmax_of, write_predictions
from cxr_jax.runs.table import Table, read_table
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, Kind

_FIXED = ("file", "split", "group", "label", "schema_version")

# by how much probabilities that are written with few digits may miss a sum of 1, or the softmax of logits
_AGREEMENT = 1e-3

# by how much those that are written in full miss it
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ClassPredictions(ClassProbabilities):
    """Predictions of K classes of which an image has exactly one.

    `label` is int [N], an index into the classes; the probabilities of an image add up to 1.
    """

    KIND: ClassVar[Kind] = EXCLUSIVE
    LABEL_TYPE: ClassVar[type] = np.int64

    def _check(self) -> None:
        classes = len(self.classes)
        if classes < 2 or len(set(self.classes)) != classes:
            raise ValueError("the classes are fewer than two, or two have one name")
        if not np.isin(self.label, range(classes)).all():
            raise ValueError("a label is none of the classes")
        sums = self.probabilities.sum(axis=1)
        if not (self.probabilities >= 0).all() or np.abs(sums - 1).max() > _AGREEMENT:
            raise ValueError("probabilities of an image are below 0 or do not add up to 1")

    @staticmethod
    def activated(logits: np.ndarray) -> np.ndarray:
        """Returns the softmax, float64 [N, K], of logits [N, K]."""
        return softmax_of(logits)

    @property
    def called(self) -> np.ndarray:
        """The class of the highest probability, int [N]; the first of two that are equal."""
        return np.argmax(self.probabilities, axis=1)

    def asked(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns all images, a mask [N], and whether they are of a class, bool [N]."""
        return np.ones(len(self), bool), self.label == self.classes.index(name)

    def _label_of(self, columns: Sequence[int]) -> np.ndarray:
        return np.argsort(columns)[self.label]

    def label_cells(self) -> tuple[tuple[str, ...], Iterator[tuple[str, ...]]]:
        """Returns the column `label`, and for each image the name of its class."""
        return ("label",), ((self.classes[label],) for label in self.label)


def write_class_predictions(path: str | Path, predictions: ClassProbabilities) -> None:
    """Writes the table to `path`, atomically; every number is written so that it reads back bit by bit.

    Raises:
        UserError: the file cannot be written.
    """
    kinds = {LOGIT: predictions.logits, PROBABILITY: predictions.probabilities}
    shown = {prefix: values for prefix, values in kinds.items() if values is not None}
    names = [prefix + name for prefix in shown for name in predictions.classes]
    columns, labels = predictions.label_cells()
    rows = []
    for i, told in enumerate(labels):
        texts = (getattr(predictions, name)[i] for name in predictions.TEXTS)
        rows.append((*texts, *told, *(repr(float(number)) for values in shown.values() for number in values[i])))
    write_rows(path, (*predictions.TEXTS, *columns, *names), rows)


def classes_of_table(path: str | Path) -> tuple[str, ...]:
    """Returns the classes that the columns of a table name, in their order; empty for a table of NORMAL and PNEUMONIA.

    Raises:
        UserError: it is no table.
    """
    header = read_table(path, _FIXED).header
    if findings := findings_of(header):
        return findings
    if "probability" in map(str.lower, header):
        return ()
    for prefix in (PROBABILITY, LOGIT):
        names = tuple(name.removeprefix(prefix) for name in header if name.startswith(prefix))
        if len(names) > 1:
            return () if {name.upper() for name in names} == set(CLASS_NAMES) else names
    return ()


def read_class_predictions(path: str | Path, *, require_file: bool = True) -> ClassProbabilities:
    """Reads a table with a column of probabilities, or of logits, for each class, rows of all splits.

    One with columns `label_NAME` is of findings, as `finding_predictions` says; the following is of others.

    Labels are names of the classes, or their numbers from 0 in the order of the columns. Without probabilities they are
    the softmax of the logits; with both, they must agree.

    Args:
        path: the table.
        require_file: refuse a table that does not name its images; otherwise they are named by table and row.

    Raises:
        UserError: the file is missing, is not such a table, or a cell is wrong; row and column are named.
    """
    table = read_table(path, _FIXED)
    if findings := findings_of(table.header):
        return read_findings(table, findings, require_file=require_file)
    classes = classes_of_table(path)
    if len(classes) < 2:
        raise UserError(f"{path} has no columns probability_NAME or logit_NAME of two classes or more")
    require_columns(table, ["file", "label"] if require_file or "label" not in table.header else ["label"])
    images = named_images(table, require_file=require_file)
    logits = number_columns(table, LOGIT, classes, cells.finite)
    stated = number_columns(table, PROBABILITY, classes, cells.probability)
    if logits is None and stated is None:
        raise UserError(f"{path} has neither probabilities nor logits of all of {', '.join(classes)}")
    probabilities = softmax_of(logits) if stated is None else stated
    _check_sums(table, classes, probabilities, None if logits is None else softmax_of(logits))
    return ClassPredictions(
        **images,
        classes=classes,
        label=np.array(table.column("label", lambda cell: _label(cell, classes))),
        logits=logits,
        probabilities=_adding_up(probabilities),
    )


def read_any_predictions(path: str | Path) -> Predictions | ClassProbabilities:
    """Reads a table of NORMAL and PNEUMONIA, of other classes, or of findings; UserError as their readers."""
    return read_class_predictions(path) if classes_of_table(path) else read_predictions(path)


def write_any_predictions(path: str | Path, predictions: Predictions | ClassProbabilities) -> None:
    """Writes a table of NORMAL and PNEUMONIA, of other classes, or of findings; UserError as their writers."""
    (write_predictions if isinstance(predictions, Predictions) else write_class_predictions)(path, predictions)


def _adding_up(probabilities: np.ndarray) -> np.ndarray:
    """Returns probabilities [N, K] that add up to 1; those that do so but for rounding stay as they are, bit by bit."""
    sums = probabilities.sum(axis=1, keepdims=True)
    return np.where(np.abs(sums - 1) > _ROUNDING, probabilities / sums, probabilities)


def _label(cell: str, classes: tuple[str, ...]) -> int:
    """Returns the index of a class, by its name in capitals or not, or by its number."""
    lowered = [name.lower() for name in classes]
    if cell.lower() in lowered:
        return lowered.index(cell.lower())
    number = cell.removesuffix(".0")
    if not number.isdecimal() or int(number) >= len(classes):
        raise ValueError(f"{cell!r} is none of the classes {', '.join(classes)}, nor a number from 0 in that order")
    return int(number)


def _check_sums(
    table: Table, classes: tuple[str, ...], probabilities: np.ndarray, of_logits: np.ndarray | None
) -> None:
    """Raises UserError for rows whose probabilities do not add up to 1, or are not those of the logits beside them."""
    sums = probabilities.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > _AGREEMENT)
    if len(wrong):
        row = int(wrong[0])
        raise table.error(
            row,
            PROBABILITY + classes[0],
            f"the probabilities of the {len(classes)} classes add up to {sums[row]:.6g}, not to 1: for findings that "
            "occur together give each a column label_NAME, of 1, 0 or nothing, in place of the column label",
        )
    if of_logits is None:
        return
    wrong = np.flatnonzero(np.abs(probabilities - of_logits).max(axis=1) > _AGREEMENT)
    if len(wrong):
        row = int(wrong[0])
        raise table.error(
            row,
            PROBABILITY + classes[0],
            "the probabilities are not the softmax of the logits: correct one, or leave the logits out",
        )
