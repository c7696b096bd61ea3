"""The predictions table of classes other than NORMAL and PNEUMONIA: one probability column for each class.

A CSV file with a header and one row an image: `file`, `label`, and for each class NAME a column `probability_NAME` or
`logit_NAME`, in the order of the labels. `split`, `group` and `schema_version` may be missing; other columns are
ignored. An image has exactly one class, and its probabilities add up to 1.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.clustered import Clustered
from cxr_jax.runs.files import write_text
from cxr_jax.runs.predictions import groups_of, softmax_of
from cxr_jax.runs.table import Table, read_table
from cxr_jax.vocabulary import CLASS_NAMES

LOGIT, PROBABILITY = "logit_", "probability_"
"""What the names of the columns begin with; the name of the class follows."""

_FIXED = ("file", "split", "group", "label", "schema_version")

# by how much probabilities that are written with few digits may miss a sum of 1, or the softmax of logits
_AGREEMENT = 1e-3

# by how much those that are written in full miss it
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ClassPredictions(Clustered):
    """Predictions on N images of K classes, as columns of equal length; N is at least 1.

    Attributes:
        file: name of each image; no two are equal.
        split: `train`, `val` or `test`; empty where unknown.
        group: stand-in for the patient; empty where unknown.
        classes: the K names, in the order of the labels.
        label: int [N], index into `classes`.
        logits: float64 [N, K], or None when the program gave none.
        probabilities: float64 [N, K], rows that add up to 1.

    Raises:
        ValueError: the columns differ in length, are empty, or hold a value out of its range.
    """

    file: tuple[str, ...]
    split: tuple[str, ...]
    group: tuple[str, ...]
    classes: tuple[str, ...]
    label: np.ndarray
    logits: np.ndarray | None
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        for name in ("file", "split", "group", "classes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "label", np.asarray(self.label, dtype=np.int64))
        object.__setattr__(self, "probabilities", np.asarray(self.probabilities, dtype=np.float64))
        if self.logits is not None:
            object.__setattr__(self, "logits", np.asarray(self.logits, dtype=np.float64))
        self._check()

    def _check(self) -> None:
        count, classes = len(self.file), len(self.classes)
        if count == 0:
            raise ValueError("predictions of no image")
        for name in ("split", "group", "label"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {count} files")
        if len(set(self.file)) != count:
            raise ValueError("a file occurs twice")
        if classes < 2 or len(set(self.classes)) != classes:
            raise ValueError("the classes are fewer than two, or two have one name")
        if not np.isin(self.label, range(classes)).all():
            raise ValueError("a label is none of the classes")
        for name in ("probabilities", "logits"):
            values = getattr(self, name)
            if values is not None and not (values.shape == (count, classes) and np.isfinite(values).all()):
                raise ValueError(f"{name} are not {count} rows of {classes} finite numbers")
        sums = self.probabilities.sum(axis=1)
        if not (self.probabilities >= 0).all() or np.abs(sums - 1).max() > _AGREEMENT:
            raise ValueError("probabilities of an image are below 0 or do not add up to 1")

    def __len__(self) -> int:
        return len(self.file)

    @classmethod
    def from_logits(
        cls,
        logits: np.ndarray,
        *,
        file: Sequence[str],
        split: Sequence[str],
        group: Sequence[str],
        classes: Sequence[str],
        label: np.ndarray,
    ) -> ClassPredictions:
        """Returns predictions whose probabilities are the softmax of `logits` [N, K]; ValueError as in the class."""
        logits = np.asarray(logits, dtype=np.float64)
        columns = (tuple(file), tuple(split), tuple(group), tuple(classes))
        return cls(*columns, label, logits, softmax_of(logits))

    @property
    def called(self) -> np.ndarray:
        """The class of the highest probability, int [N]; the first of two that are equal."""
        return np.argmax(self.probabilities, axis=1)

    def with_logits(self, logits: np.ndarray) -> ClassPredictions:
        """Returns the same images with other logits [N, K]."""
        return replace(self, logits=logits, probabilities=softmax_of(logits))

    def select(self, rows: np.ndarray) -> ClassPredictions:
        """Returns the given rows (indices or a mask, at least one row) in the given order."""
        index = np.arange(len(self))[rows]
        picked = {name: tuple(getattr(self, name)[i] for i in index) for name in ("file", "split", "group")}
        logits = None if self.logits is None else self.logits[index]
        return replace(self, **picked, label=self.label[index], logits=logits, probabilities=self.probabilities[index])

    def sha256(self) -> str:
        """Returns the sha256 of what was predicted, hexadecimal: file, label, logits and probabilities of every row."""
        digest = hashlib.sha256()
        for i in range(len(self)):
            logits = () if self.logits is None else self.logits[i]
            numbers = [repr(float(number)) for number in (*logits, *self.probabilities[i])]
            row = "\0".join((self.file[i], self.classes[self.label[i]], *numbers))
            digest.update(row.encode(errors="surrogateescape") + b"\n")
        return digest.hexdigest()


def write_class_predictions(path: str | Path, predictions: ClassPredictions) -> None:
    """Writes the table to `path`, atomically; every number is written so that it reads back bit by bit.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = {LOGIT: predictions.logits, PROBABILITY: predictions.probabilities}
    shown = {prefix: values for prefix, values in kinds.items() if values is not None}
    names = [prefix + name for prefix in shown for name in predictions.classes]
    writer.writerow(("file", "split", "group", "label", *names, "schema_version"))
    for i in range(len(predictions)):
        known = (predictions.file[i], predictions.split[i], predictions.group[i])
        numbers = [repr(float(number)) for values in shown.values() for number in values[i]]
        writer.writerow((*known, predictions.classes[predictions.label[i]], *numbers, cells.TABLE_VERSION))
    write_text(path, text.getvalue())


def classes_of_table(path: str | Path) -> tuple[str, ...]:
    """Returns the classes that the columns of a table name, in their order; empty for a table of NORMAL and PNEUMONIA.

    Raises:
        UserError: it is no table.
    """
    header = read_table(path, _FIXED).header
    for prefix in (PROBABILITY, LOGIT):
        names = tuple(name.removeprefix(prefix) for name in header if name.startswith(prefix))
        if len(names) > 1 and names != CLASS_NAMES:
            return names
    return ()


def read_class_predictions(path: str | Path, *, require_file: bool = True) -> ClassPredictions:
    """Reads a table with a column of probabilities, or of logits, for each class, rows of all splits.

    Labels are names of the classes, or their numbers from 0 in the order of the columns. Without probabilities they are
    the softmax of the logits; with both, they must agree.

    Args:
        path: the table.
        require_file: refuse a table that does not name its images; otherwise they are named by table and row.

    Raises:
        UserError: the file is missing, is not such a table, or a cell is wrong; row and column are named.
    """
    table = read_table(path, _FIXED)
    classes = classes_of_table(path)
    if len(classes) < 2:
        raise UserError(f"{path} has no columns probability_NAME or logit_NAME of two classes or more")
    if "label" not in table.header or (require_file and "file" not in table.header):
        missing = [name for name in ("file", "label") if name not in table.header]
        raise UserError(f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(table.header)}")
    table.column("schema_version", cells.version, default=cells.TABLE_VERSION)
    named = "file" in table.header and not (not require_file and table.is_blank(["file"]))
    file = table.column("file", cells.file) if named else [f"{path}, row {number}" for number, _ in table.rows]
    table.check_unique("file", file)
    logits = _numbers(table, LOGIT, classes, cells.finite)
    stated = _numbers(table, PROBABILITY, classes, cells.probability)
    if logits is None and stated is None:
        raise UserError(f"{path} has neither probabilities nor logits of all of {', '.join(classes)}")
    probabilities = softmax_of(logits) if stated is None else stated
    _check_sums(table, classes, probabilities, None if logits is None else softmax_of(logits))
    return ClassPredictions(
        file=tuple(file),
        split=tuple(table.column("split", cells.split, default="")),
        group=groups_of(table),
        classes=classes,
        label=np.array(table.column("label", lambda cell: _label(cell, classes))),
        logits=logits,
        probabilities=_adding_up(probabilities),
    )


def _adding_up(probabilities: np.ndarray) -> np.ndarray:
    """Returns probabilities [N, K] that add up to 1; those that do so but for rounding stay as they are, bit by bit."""
    sums = probabilities.sum(axis=1, keepdims=True)
    return np.where(np.abs(sums - 1) > _ROUNDING, probabilities / sums, probabilities)


def _numbers(table: Table, prefix: str, classes: tuple[str, ...], parse: object) -> np.ndarray | None:
    """Returns the columns of all classes that begin with `prefix`, float64 [N, K]; None if one is missing or empty."""
    names = [prefix + name for name in classes]
    if not set(names) <= set(table.header) or table.is_blank(names):
        return None
    return np.array([table.column(name, parse) for name in names], np.float64).T


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
            f"the probabilities of the {len(classes)} classes add up to {sums[row]:.6g}, not to 1: classes that can "
            "occur together are not judged",
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
