"""The predictions table: the one thing that evaluation needs from a network, whichever program ran it.

A CSV file with a header and one row an image. `file`, `label` and either `probability` or both logits are required.
`split`, `group`, `subtype` and `schema_version` may be missing. Other columns are ignored. A row is of `train`, `val`
or `test` if it says so; `rows_of` takes those of one split.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.clustered import Clustered, Rows
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

# A logit of float32 written with six digits moves its probability by less than this.
_AGREEMENT = 1e-4


@dataclass(frozen=True)
class Predictions(Clustered):
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
        """Returns predictions whose probability is the softmax of `logits` [N, 2]; ValueError as in the class."""
        logits = np.asarray(logits, dtype=np.float64)
        return cls(tuple(file), tuple(split), tuple(group), tuple(subtype), label, logits, probability_of(logits))

    def select(self, rows: np.ndarray) -> Predictions:
        """Returns the given rows (indices or a mask, at least one row) in the given order."""
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
                cells.TABLE_VERSION,
            )
        )
    write_text(path, text.getvalue())


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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cells)
    writer.writerows(zip(*cells.values(), strict=True))
    write_text(path, text.getvalue())


def predictions_sha256(predictions: Predictions) -> str:
    """Returns the sha256 of what was predicted, hexadecimal: file, label, logits and probability of every row.

    Groups and subtypes do not enter: they are known of the images, and may be known better later.
    """
    digest = hashlib.sha256()
    for i in range(len(predictions)):
        logits = () if predictions.logits is None else predictions.logits[i]
        numbers = [repr(float(number)) for number in (*logits, predictions.probability[i])]
        digest.update(
            "\0".join((predictions.file[i], CLASS_NAMES[predictions.label[i]], *numbers)).encode(
                errors="surrogateescape"
            )
            + b"\n"
        )
    return digest.hexdigest()


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
    table = read_table(path, PREDICTION_COLUMNS)
    named = "file" in table.header and not (not require_file and table.is_blank(["file"]))
    _check_header(table, ("file", "label") if require_file else ("label",))
    table.column("schema_version", cells.version, default=cells.TABLE_VERSION)
    file = table.column("file", cells.file) if named else [f"{path}, row {number}" for number, _ in table.rows]
    table.check_unique("file", file)
    label = table.column("label", cells.label)
    logits = None
    if set(LOGIT_COLUMNS) <= set(table.header) and not table.is_blank(LOGIT_COLUMNS):
        logits = np.array([table.column(name, cells.finite) for name in LOGIT_COLUMNS]).T
    stated = "probability" in table.header and not table.is_blank(["probability"])
    if stated:
        probability = np.array(table.column("probability", cells.probability))
    elif logits is not None:
        probability = probability_of(logits)
    else:
        raise UserError(f"{table.path} has neither probabilities nor logits: every cell of them is empty")
    predictions = Predictions(
        file=tuple(file),
        split=tuple(table.column("split", cells.split, default="")),
        group=groups_of(table),
        subtype=tuple(_subtypes(table, label)),
        label=np.array(label),
        probability=probability,
        logits=logits,
    )
    if stated and logits is not None:
        _check_agreement(table, predictions)
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
    missing = [f"no column {name}" for name in required if name not in table.header]
    logits = [name for name in LOGIT_COLUMNS if name not in table.header]
    if "probability" not in table.header and logits:
        missing.append(f"no column probability (of PNEUMONIA) and no {' or '.join(logits)} to compute it from")
    if missing:
        raise UserError(f"{table.path} has {', '.join(missing)}; it has {', '.join(table.header)}")


def groups_of(table: Table) -> tuple[str, ...]:
    """Returns the group of every row, empty where it is missing.

    A column of whole numbers with a missing cell comes out of some programs as 7.0 and 8.0, which are 7 and 8.
    """
    groups = table.column("group", cells.text, default="")
    if all(group.removesuffix(".0").isdecimal() for group in groups if group):
        return tuple(group.removesuffix(".0") for group in groups)
    return tuple(groups)


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


def _check_agreement(table: Table, predictions: Predictions) -> None:
    """Refuses probabilities that are not those of the logits beside them: one of the two must be a mistake."""
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
