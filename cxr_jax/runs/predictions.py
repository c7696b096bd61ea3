"""The predictions table: the one thing that evaluation needs from a network, whichever program ran it.

A CSV file with a header and one row an image. `file`, `label` and either `probability` or both logits are required;
`split`, `group`, `subtype` and `schema_version` may be missing, further columns are ignored.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_text
from cxr_jax.runs.table import Table, read_table
from cxr_jax.vocabulary import (
    CLASS_NAMES,
    LOGIT_COLUMNS,
    NORMAL,
    PNEUMONIA,
    PREDICTION_COLUMNS,
    SPLIT_NAMES,
    SUBTYPE_NAMES,
)

TABLE_VERSION = 1
"""Version of the table's columns, written into every row's `schema_version`."""

# A logit of float32 written with six digits moves its probability by less than this.
_AGREEMENT = 1e-4


@dataclass(frozen=True)
class Predictions:
    """Predictions on N images, as columns of equal length; N is at least 1.

    Attributes:
        file: name of each image; no two are equal.
        split: `train`, `val` or `test`; empty where unknown.
        group: stand-in for the patient; empty where unknown.
        subtype: one of `vocabulary.SUBTYPE_NAMES`.
        label: int [N], index into `vocabulary.CLASS_NAMES`.
        logits: float64 [N, 2] in the order of the classes, or None when the program gave none.
        probability: float64 [N], of PNEUMONIA, 0..1.

    Raises:
        ValueError: the columns differ in length, are empty, or hold a value out of its range.
    """

    file: tuple[str, ...]
    split: tuple[str, ...]
    group: tuple[str, ...]
    subtype: tuple[str, ...]
    label: np.ndarray
    logits: np.ndarray | None
    probability: np.ndarray

    def __post_init__(self) -> None:
        for name in ("file", "split", "group", "subtype"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "label", np.asarray(self.label, dtype=np.int64))
        object.__setattr__(self, "probability", np.asarray(self.probability, dtype=np.float64))
        if self.logits is not None:
            object.__setattr__(self, "logits", np.asarray(self.logits, dtype=np.float64))
        self._check()

    def _check(self) -> None:
        count = len(self.file)
        if count == 0:
            raise ValueError("predictions of no image")
        for name in ("split", "group", "subtype", "label", "probability"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {count} files")
        if len(set(self.file)) != count:
            raise ValueError("a file occurs twice")
        if not np.isin(self.label, (NORMAL, PNEUMONIA)).all():
            raise ValueError("a label is none of the classes")
        if not ((self.probability >= 0) & (self.probability <= 1)).all():
            raise ValueError("a probability is not a number from 0 to 1")
        if not set(self.subtype) <= set(SUBTYPE_NAMES):
            raise ValueError(f"a subtype is none of {SUBTYPE_NAMES}")
        if self.logits is not None and not (
            self.logits.shape == (count, len(CLASS_NAMES)) and np.isfinite(self.logits).all()
        ):
            raise ValueError(f"logits are not {count} finite pairs")

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
        subtype: Sequence[str],
        label: np.ndarray,
    ) -> Predictions:
        """Return predictions whose probability is the softmax of `logits` [N, 2]; ValueError as in the class."""
        logits = np.asarray(logits, dtype=np.float64)
        return cls(tuple(file), tuple(split), tuple(group), tuple(subtype), label, logits, probability_of(logits))

    @property
    def has_groups(self) -> bool:
        """True if every image has a group."""
        return all(self.group)

    def clusters(self) -> np.ndarray:
        """Return int [N]: equal numbers for images of one group; an image without a group stands alone.

        The numbers follow the sorted names, so they do not depend on the order of the rows.
        """
        pairs = zip(self.group, self.file, strict=True)
        keys = [("group", group) if group else ("file", file) for group, file in pairs]
        numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
        return np.array([numbers[key] for key in keys])

    def select(self, rows: np.ndarray) -> Predictions:
        """Return the given rows (indices or a mask, at least one row) in the given order."""
        index = np.arange(len(self))[rows]

        def pick(column: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(column[i] for i in index)

        logits = None if self.logits is None else self.logits[index]
        return Predictions(
            pick(self.file),
            pick(self.split),
            pick(self.group),
            pick(self.subtype),
            self.label[index],
            logits,
            self.probability[index],
        )


def probability_of(logits: np.ndarray) -> np.ndarray:
    """Return float64 [N]: the softmax probability of PNEUMONIA of logits [N, 2], without overflow."""
    difference = np.asarray(logits[:, PNEUMONIA] - logits[:, NORMAL], dtype=np.float64)
    small = np.exp(-np.abs(difference))
    return np.where(difference >= 0, 1 / (1 + small), small / (1 + small))


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write the table to `path`, atomically; every number is written so that it reads back bit by bit.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PREDICTION_COLUMNS)
    for i in range(len(predictions)):
        logits = ("", "") if predictions.logits is None else tuple(repr(float(x)) for x in predictions.logits[i])
        writer.writerow(
            (
                predictions.file[i],
                predictions.split[i],
                predictions.group[i],
                predictions.subtype[i],
                CLASS_NAMES[predictions.label[i]],
                *logits,
                repr(float(predictions.probability[i])),
                TABLE_VERSION,
            )
        )
    write_text(path, text.getvalue())


def read_predictions(path: str | Path) -> Predictions:
    """Read a predictions table made by this or any other program.

    Labels are class names or 0 and 1. Without a `probability` column it is the softmax of the logits; with both, they
    must agree. Where the subtype is missing it is `normal` or `unknown`, by the label.

    Raises:
        UserError: the file is missing, is not such a table, or a cell is wrong; row and column are named (rows are
            counted as in a spreadsheet, the header is row 1).
    """
    table = read_table(path)
    _check_header(table)
    table.column("schema_version", _version, default=TABLE_VERSION)
    file = table.column("file", _file)
    table.check_unique("file", file)
    label = table.column("label", _label)
    logits = None
    if set(LOGIT_COLUMNS) <= set(table.header) and not table.is_blank(LOGIT_COLUMNS):
        logits = np.array([table.column(name, _finite) for name in LOGIT_COLUMNS]).T
    stated = "probability" in table.header and not table.is_blank(["probability"])
    if stated:
        probability = np.array(table.column("probability", _probability))
    elif logits is not None:
        probability = probability_of(logits)
    else:
        raise UserError(f"{table.path} has neither probabilities nor logits: every cell of them is empty")
    predictions = Predictions(
        file=tuple(file),
        split=tuple(table.column("split", _split, default="")),
        group=tuple(table.column("group", str, default="")),
        subtype=tuple(_subtypes(table, label)),
        label=np.array(label),
        probability=probability,
        logits=logits,
    )
    if stated and logits is not None:
        _check_agreement(table, predictions)
    return predictions


def _check_header(table: Table) -> None:
    """Refuse a header without the columns that judging needs."""
    present = f"it has {', '.join(table.header)}"
    for name in ("file", "label"):
        if name not in table.header:
            raise UserError(f"{table.path} has no column {name}; {present}")
    missing = [name for name in LOGIT_COLUMNS if name not in table.header]
    if "probability" not in table.header and missing:
        raise UserError(
            f"{table.path} has no column probability (of PNEUMONIA) and no {' or '.join(missing)} to compute it from; "
            f"{present}"
        )


def _file(cell: str) -> str:
    if not cell:
        raise ValueError("the name of the image is missing")
    return cell


def _split(cell: str) -> str:
    if cell and cell not in SPLIT_NAMES:
        raise ValueError(f"unknown split {cell!r}; a split is one of {', '.join(SPLIT_NAMES)}")
    return cell


def _label(cell: str) -> int:
    if cell.upper() in CLASS_NAMES:
        return CLASS_NAMES.index(cell.upper())
    # A column of integers comes out of some programs as 0.0 and 1.0.
    if cell in ("0", "1", "0.0", "1.0"):
        return int(float(cell))
    raise ValueError(f"unknown label {cell!r}; a label is {' or '.join(CLASS_NAMES)}, or 0 or 1 in that order")


def _finite(cell: str) -> float:
    if not cell:
        raise ValueError("the number is missing")
    try:
        value = float(cell)
    except ValueError as error:
        raise ValueError(f"{cell!r} is not a number") from error
    if not math.isfinite(value):
        raise ValueError(f"{cell} is not a finite number")
    return value


def _probability(cell: str) -> float:
    value = _finite(cell)
    if not 0 <= value <= 1:
        raise ValueError(f"{cell} is not a probability from 0 to 1")
    return value


def _version(cell: str) -> int:
    if not cell.isdecimal() or int(cell) > TABLE_VERSION:
        raise ValueError(f"this cxr_jax reads tables up to version {TABLE_VERSION}, not {cell!r}; update cxr_jax")
    return int(cell)


def _subtypes(table: Table, label: list[int]) -> list[str]:
    """Return the subtype of every row, which must fit its label; from the label alone where the cell is empty."""
    cells = table.column("subtype", str.lower, default="")
    subtypes = []
    for row, (cell, positive) in enumerate(zip(cells, label, strict=True)):
        if cell and cell not in SUBTYPE_NAMES:
            known = ", ".join(SUBTYPE_NAMES)
            raise table.error(row, "subtype", f"unknown subtype {cell!r}; a subtype is one of {known}")
        if cell and (cell == "normal") == (positive == PNEUMONIA):
            raise table.error(row, "subtype", f"{cell} does not fit the label {CLASS_NAMES[positive]}")
        subtypes.append(cell or ("unknown" if positive == PNEUMONIA else "normal"))
    return subtypes


def _check_agreement(table: Table, predictions: Predictions) -> None:
    """Refuse probabilities that are not those of the logits beside them: one of the two must be a mistake."""
    expected = probability_of(predictions.logits)
    wrong = np.flatnonzero(np.abs(predictions.probability - expected) > _AGREEMENT)
    if len(wrong):
        row = int(wrong[0])
        raise table.error(
            row,
            "probability",
            f"{predictions.probability[row]:.6g} is not the softmax of the logits ({expected[row]:.6g}); "
            "correct one, or leave the logits out",
        )
