"""The predictions table: the one thing that evaluation needs from a network, whichever program ran it.

A CSV file with a header and one row an image. `file`, `label` and either `probability` or both logits are required.
`probability_PNEUMONIA` stands for `probability` where there is none; `probability_NORMAL` beside it must agree.
`split`, `group`, `subtype` and `schema_version` may be missing. Other columns are ignored. A row is of `train`, `val`
or `test` if it says so; `rows_of` takes those of one split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.clustered import Rows
from cxr_jax.runs.files import csv_text, write_text
from cxr_jax.runs.predicted_images import PredictedImages, named_images, write_rows
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

OF_OTHER_CLASSES = ("probability_", "label_")
"""What columns of tables of other classes, or of findings, begin with."""

_OF_EACH_CLASS = tuple(f"probability_{name}" for name in CLASS_NAMES)

# by how much two probabilities that are written with few digits may miss a sum of 1
_SUM_AGREEMENT = 1e-3

# A logit of float32 written with six digits moves its probability by less than this.
_AGREEMENT = 1e-4


@dataclass(frozen=True)
class Predictions(PredictedImages):
    """Predictions of PNEUMONIA on N images.

    Attributes:
        subtype: one of `vocabulary.SUBTYPE_NAMES`.
        label: int [N], index into `vocabulary.CLASS_NAMES`.
        logits: float64 [N, 2] in the order of the classes, or None when the program gave none.
        probability: float64 [N], of PNEUMONIA, 0..1.

    Raises:
        ValueError: the columns differ in length, are empty, or hold a value out of its range.
    """

    subtype: tuple[str, ...]
    label: np.ndarray
    logits: np.ndarray | None
    probability: np.ndarray

    TEXTS: ClassVar[tuple[str, ...]] = (*PredictedImages.TEXTS, "subtype")
    ARRAYS: ClassVar[tuple[str, ...]] = ("label", "probability")

    def __post_init__(self) -> None:
        self._take_columns()
        object.__setattr__(self, "label", np.asarray(self.label, dtype=np.int64))
        object.__setattr__(self, "probability", np.asarray(self.probability, dtype=np.float64))
        if self.logits is not None:
            object.__setattr__(self, "logits", np.asarray(self.logits, dtype=np.float64))
        self._check()

    def _check(self) -> None:
        self._check_columns()
        count = len(self)
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
        """Returns predictions whose probability is the softmax of `logits` [N, 2]; ValueError as in the class."""
        logits = np.asarray(logits, dtype=np.float64)
        return cls(tuple(file), tuple(split), tuple(group), tuple(subtype), label, logits, probability_of(logits))

    def select(self, rows: np.ndarray) -> Predictions:
        """Returns the given rows (indices or a mask, at least one row) in the given order."""
        return Predictions(**self._picked(rows))

    def _hashed_rows(self) -> Iterator[tuple[Sequence[str], Sequence[float]]]:
        for i in range(len(self)):
            logits = () if self.logits is None else self.logits[i]
            yield (CLASS_NAMES[self.label[i]],), (*logits, self.probability[i])


def probability_of(logits: np.ndarray) -> np.ndarray:
    """Returns float64 [N]: the softmax probability of PNEUMONIA of logits [N, 2], without overflow."""
    difference = np.asarray(logits[:, PNEUMONIA] - logits[:, NORMAL], dtype=np.float64)
    small = np.exp(-np.abs(difference))
    return np.where(difference >= 0, 1 / (1 + small), small / (1 + small))


def softmax_of(logits: np.ndarray) -> np.ndarray:
    """Returns float64 [N, K]: the softmax probabilities of logits [N, K], without overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Writes the table to `path`, atomically; every number is written so that it reads back bit by bit.

    Raises:
        UserError: the file cannot be written.
    """
    rows = []
    for i in range(len(predictions)):
        logits = ("", "") if predictions.logits is None else tuple(repr(float(x)) for x in predictions.logits[i])
        texts = (getattr(predictions, name)[i] for name in Predictions.TEXTS)
        probability = repr(float(predictions.probability[i]))
        rows.append((*texts, CLASS_NAMES[predictions.label[i]], *logits, probability))
    write_rows(path, PREDICTION_COLUMNS[:-1], rows)


def write_columns(path: str | Path, columns: Mapping[str, Any]) -> None:
    """Writes columns of equal length as a table that `read_predictions` reads; the images are numbered if unnamed.

    Raises:
        UserError: it is no table: a column is no list of cells, or is longer than another; or the file cannot be
            written.
    """
    cells = {str(name): np.asarray(column).tolist() for name, column in columns.items()}
    if not cells or not all(isinstance(column, list) for column in cells.values()):
        raise UserError(f"{path} is no table: give a list of cells for each column, such as label and probability")
    lengths = {name: len(column) for name, column in cells.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"{path} has columns of different lengths: {told}")
    if "file" not in cells:
        cells["file"] = [f"image {number}" for number in range(1, 1 + next(iter(lengths.values())))]
    write_text(path, csv_text([cells, *zip(*cells.values(), strict=True)]))


def predictions_sha256(predictions: Predictions) -> str:
    """Returns the sha256 of what was predicted, hexadecimal, as `Predictions.sha256` does."""
    return predictions.sha256()


def read_predictions(path: str | Path, *, require_file: bool = True) -> Predictions:
    """Reads a predictions table made by this or any other program, rows of all splits.

    Labels are class names, 0 and 1, or false and true. Without a `probability` column it is the softmax of the logits;
    with both, they must agree. Where the subtype is missing it is `normal` or `unknown`, by the label. Cells that say
    NA, NaN, null and the like are missing. Numbers may have a decimal comma.

    Args:
        path: the table.
        require_file: refuse a table that does not name its images; otherwise they are named by table and row.

    Raises:
        UserError: the file is missing, is not such a table, or a cell is wrong; row and column are named (rows are
            counted as in a spreadsheet, the header is row 1).
    """
    table = read_table(path, (*PREDICTION_COLUMNS, *_OF_EACH_CLASS))
    _check_header(table, ("file", "label") if require_file else ("label",))
    images = named_images(table, require_file=require_file)
    label = table.column("label", cells.label)
    logits = None
    if set(LOGIT_COLUMNS) <= set(table.header) and not table.is_blank(LOGIT_COLUMNS):
        logits = np.array([table.column(name, cells.finite) for name in LOGIT_COLUMNS]).T
    column = _probability_column(table.header)
    stated = column in table.header and not table.is_blank([column])
    if stated:
        probability = np.array(table.column(column, cells.probability))
    elif logits is not None:
        probability = probability_of(logits)
    else:
        raise UserError(f"{table.path} has neither probabilities nor logits: every cell of them is empty")
    predictions = Predictions(
        **images,
        subtype=tuple(_subtypes(table, label)),
        label=np.array(label),
        probability=probability,
        logits=logits,
    )
    if stated and logits is not None:
        _check_agreement(table, column, predictions)
    if column != "probability" and set(_OF_EACH_CLASS) <= set(table.header):
        _check_sums(table, predictions)
    return predictions


@dataclass(frozen=True)
class SplitRows(Generic[Rows]):
    """The rows of a table that belong to one split, and how many rows of each other split are left out."""

    predictions: Rows
    left_out: dict[str, int]

    @property
    def sentence(self) -> str | None:
        """What a reader must know of the rows that are left out; None if all were taken."""
        if not self.left_out:
            return None
        kept, others = len(self.predictions), [f"{count:,} of {name}" for name, count in self.left_out.items()]
        total = kept + sum(self.left_out.values())
        split = self.predictions.split[0]
        return f"Of {total:,} rows, the {kept:,} of split {split} are taken; {' and '.join(others)} are left out."


def rows_of(split: str, predictions: Rows, path: str | Path) -> SplitRows[Rows]:
    """Returns the rows of one split of the table at `path`, or all rows if the table has no splits.

    Raises:
        UserError: there is no row of that split, or some rows say their split and some do not.
    """
    counts = Counter(predictions.split)
    unknown = counts.pop("", 0)
    if not counts:
        return SplitRows(predictions, {})
    if unknown:
        raise UserError(
            f"{path} has {unknown:,} rows without a split beside rows with one: give every row train, val or test, or "
            "leave the column split out"
        )
    if split not in counts:
        raise UserError(
            f"{path} has no row of split {split}, only of {' and '.join(counts)}: name another table, or leave the "
            "column split out if it is wrong"
        )
    left_out = {name: counts[name] for name in SPLIT_NAMES if name != split and counts[name]}
    rows = np.array([name == split for name in predictions.split])
    return SplitRows(predictions if not left_out else predictions.select(rows), left_out)


def _check_header(table: Table, required: Sequence[str]) -> None:
    """Refuses a header without the columns that judging needs; all that are missing are named at once."""
    logits = [name for name in LOGIT_COLUMNS if name not in table.header]
    others = [name for name in table.header if name.startswith(OF_OTHER_CLASSES)]
    stated = _probability_column(table.header) in table.header
    if not stated and logits and others:
        raise UserError(
            f"{table.path} is of classes other than NORMAL and PNEUMONIA (it has the column {others[0]}): "
            "cxr-jax judge takes it, and with --merge makes a table of NORMAL and PNEUMONIA of it"
        )
    missing = [f"no column {name}" for name in required if name not in table.header]
    if not stated and logits:
        missing.append(f"no column probability (of PNEUMONIA) and no {' or '.join(logits)} to compute it from")
    if missing:
        raise UserError(f"{table.path} has {', '.join(missing)}; it has {', '.join(table.header)}")


def _subtypes(table: Table, label: list[int]) -> list[str]:
    """Returns the subtype of every row, which must fit its label; from the label alone where the cell is empty."""
    stated = table.column("subtype", lambda cell: cells.text(cell).lower(), default="")
    subtypes = []
    for row, (cell, positive) in enumerate(zip(stated, label, strict=True)):
        if cell and cell not in SUBTYPE_NAMES:
            known = ", ".join(SUBTYPE_NAMES)
            raise table.error(row, "subtype", f"unknown subtype {cell!r}; a subtype is one of {known}")
        if cell and (cell == "normal") == (positive == PNEUMONIA):
            raise table.error(row, "subtype", f"{cell} does not fit the label {CLASS_NAMES[positive]}")
        subtypes.append(cell or ("unknown" if positive == PNEUMONIA else "normal"))
    return subtypes


def _probability_column(header: Sequence[str]) -> str:
    """Returns the column of the probability of PNEUMONIA, which other programs may write with one for each class."""
    return "probability" if "probability" in header else _OF_EACH_CLASS[PNEUMONIA]


def _check_sums(table: Table, predictions: Predictions) -> None:
    """Refuses probabilities of NORMAL and PNEUMONIA that do not add up to 1."""
    column = _OF_EACH_CLASS[NORMAL]
    sums = np.array(table.column(column, cells.probability)) + predictions.probability
    wrong = np.flatnonzero(np.abs(sums - 1) > _SUM_AGREEMENT)
    if len(wrong):
        told = f"it and that of {CLASS_NAMES[PNEUMONIA]} add up to {sums[wrong[0]]:.6g}, not to 1"
        raise table.error(int(wrong[0]), column, told)


def _check_agreement(table: Table, column: str, predictions: Predictions) -> None:
    """Refuses probabilities that are not those of the logits beside them: one of the two must be a mistake."""
    expected = probability_of(predictions.logits)
    wrong = np.flatnonzero(np.abs(predictions.probability - expected) > _AGREEMENT)
    if len(wrong):
        row = int(wrong[0])
        raise table.error(
            row,
            column,
            f"{predictions.probability[row]:.6g} is not the softmax of the logits ({expected[row]:.6g}); "
            "correct one, or leave the logits out",
        )
