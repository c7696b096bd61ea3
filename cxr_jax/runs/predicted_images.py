"""What predictions tables of all kinds have in common: which images they are of, and how they are kept and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.clustered import Clustered
from cxr_jax.runs.files import csv_text, write_text
from cxr_jax.runs.table import Table


@dataclass(frozen=True)
class PredictedImages(Clustered):
    """N images with what was predicted on them, as columns of equal length; N is at least 1.

    Attributes:
        file: name of each image; no two are equal.
        split: `train`, `val` or `test`; empty where unknown.
        group: stand-in for the patient; empty where unknown.

    Raises:
        ValueError: the columns differ in length, are empty, or hold a value out of its range.
    """

    file: tuple[str, ...]
    split: tuple[str, ...]
    group: tuple[str, ...]

    TEXTS: ClassVar[tuple[str, ...]] = ("file", "split", "group")
    """Columns of one text for each image."""

    ARRAYS: ClassVar[tuple[str, ...]] = ("label",)
    """Columns of one row of numbers for each image; the logits, which may be None, are another."""

    def __len__(self) -> int:
        return len(self.file)

    def _take_columns(self) -> None:
        """Makes tuples of the columns of text."""
        for name in self.TEXTS:
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def _check_columns(self) -> None:
        """Raises ValueError for columns that differ in length or are empty, and for a file that occurs twice."""
        count = len(self.file)
        if count == 0:
            raise ValueError("predictions of no image")
        for name in (*self.TEXTS[1:], *self.ARRAYS):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {count} files")
        if len(set(self.file)) != count:
            raise ValueError("a file occurs twice")

    def _picked(self, rows: np.ndarray) -> dict[str, Any]:
        """Returns the columns of the given rows (indices or a mask) in the given order, by name."""
        index = np.arange(len(self))[rows]
        texts = {name: tuple(getattr(self, name)[i] for i in index) for name in self.TEXTS}
        logits = None if self.logits is None else self.logits[index]
        return {**texts, **{name: getattr(self, name)[index] for name in self.ARRAYS}, "logits": logits}

    def _hashed_rows(self) -> Iterator[tuple[Sequence[str], Sequence[float]]]:
        """Yields the labels and the numbers of every image, which make up what was predicted."""
        raise NotImplementedError

    def sha256(self) -> str:
        """Returns the sha256 of what was predicted, hexadecimal: file, label, logits and probabilities of every row.

        Groups do not enter: they are known of the images, and may be known better later.
        """
        digest = hashlib.sha256()
        for file, (labels, numbers) in zip(self.file, self._hashed_rows(), strict=True):
            row = "\0".join((file, *labels, *(repr(float(number)) for number in numbers)))
            digest.update(row.encode(errors="surrogateescape") + b"\n")
        return digest.hexdigest()


def write_rows(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table atomically, the version of its columns behind every row; UserError if it cannot be written."""
    versioned = ((*row, cells.TABLE_VERSION) for row in rows)
    write_text(path, csv_text([(*header, "schema_version"), *versioned]))


def require_columns(table: Table, names: Sequence[str]) -> None:
    """Raises UserError unless a table has all columns of these names."""
    missing = [name for name in names if name not in table.header]
    if missing:
        raise UserError(
            f"{table.path} has no column {' and no column '.join(missing)}; it has {', '.join(table.header)}"
        )


def named_images(table: Table, *, require_file: bool) -> dict[str, tuple[str, ...]]:
    """Returns the columns file, split and group of a table; unless `require_file` images may be told by their rows.

    Raises:
        UserError: the table is of a newer version, a cell is wrong, or a file occurs twice.
    """
    table.column("schema_version", cells.version, default=cells.TABLE_VERSION)
    named = "file" in table.header and not (not require_file and table.is_blank(["file"]))
    file = table.column("file", cells.file) if named else [f"{table.path}, row {number}" for number, _ in table.rows]
    table.check_unique("file", file)
    split = table.column("split", cells.split, default="")
    return {"file": tuple(file), "split": tuple(split), "group": groups_of(table)}


def groups_of(table: Table) -> tuple[str, ...]:
    """Returns the group of every row, empty where it is missing.

    A column of whole numbers with a missing cell comes out of some programs as 7.0 and 8.0, which are 7 and 8.
    """
    groups = table.column("group", cells.text, default="")
    if all(group.removesuffix(".0").isdecimal() for group in groups if group):
        return tuple(group.removesuffix(".0") for group in groups)
    return tuple(groups)
