"""Images in a folder, and a table that says which class, group and split each of them has."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxr_jax.data.sources.folder import bytes_of, files_below, head_of
from cxr_jax.data.sources.layout import require_every_class
from cxr_jax.data.sources.passed_over import Stray, grouped
from cxr_jax.data.sources.recognition import passed_by_name, why_no_image
from cxr_jax.data.sources.source import Entry, Listing, by_order
from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.table import Table, is_missing, read_table

LISTED = 5
"""Files that an error names."""

NOT_NAMED = "an image that the table does not name"

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what.

    Attributes:
        table: the table, with a header.
        file: its column of files: paths below the folder of images, or names that are there once.
        labels: one column of class names; or one for each class, of which exactly one is 1 in a row.
        group: column of what stands for a patient; empty if there is none.
        split: column of train, val or test; empty if there is none.
    """

    table: Path
    file: str
    labels: tuple[str, ...]
    group: str = ""
    split: str = ""


class TableSource:
    """The images of a folder that a table names."""

    kind = "table"

    def __init__(self, folder: Path, columns: Columns, classes: tuple[str, ...] = ()) -> None:
        """Reads the table and lists the folder, without reading images.

        `classes` are the names of the classes in the order of the labels; without them they are those of the table, in
        the order of its columns, or sorted.

        Raises:
            UserError: a column or a file is missing, a label is none of the classes, a file stands in the table with
                two labels, or a group in two splits.
        """
        table = read_table(columns.table, ())
        _require_columns(table, columns)
        found, strays = files_below(folder)
        rows = _rows(table, columns)
        classes = classes or _classes_of(table, columns, rows)
        places = _places(found, [row.file for row in rows], table, folder, columns.file)
        entries = by_order(
            Entry(
                file=f"{row.split}/{row.label}/{place}" if row.split else f"{row.label}/{place}",
                split=row.split or None,
                label=_label(row, classes, table, columns),
                place=place,
                group=row.group,
            )
            for row, place in zip(rows, places, strict=True)
        )
        _require_whole_groups(entries, columns)
        require_every_class(entries, source=str(columns.table), classes=classes)
        others = [
            _stray(place, folder) for place in sorted(found.keys() - set(places)) if not _is(place, folder, columns)
        ]
        digest = hashlib.sha256(repr((columns.file, columns.labels, columns.group, columns.split)).encode())
        for entry in entries:
            told = f"{entry.file}\0{entry.group}\0{found[entry.place]}\n"
            digest.update(told.encode(errors="surrogateescape"))
        self._folder = folder
        passed_over = grouped((*strays, *others))
        self.listing = Listing(entries, passed_over, (), False, digest.hexdigest(), classes)

    @contextmanager
    def opened(self) -> Iterator[TableSource]:
        """Yields itself: nothing needs to be opened."""
        yield self

    def read(self, entry: Entry) -> bytes:
        """Returns the bytes of one file, at most one more than is allowed; UserError if it cannot be read."""
        return bytes_of(self._folder / entry.place, entry.file)


@dataclass(frozen=True)
class _Row:
    """What one row of the table says, and its number in the file."""

    number: int
    file: str
    label: str
    group: str
    split: str


def _is(place: str, folder: Path, columns: Columns) -> bool:
    """Returns whether a file of the folder is the table itself."""
    return (folder / place).resolve() == columns.table.resolve()


def _stray(place: str, folder: Path) -> Stray:
    """Returns a file that the table does not name, and why it is no part of the data set."""
    reason = why_no_image(place, lambda path: head_of(folder / path)) or NOT_NAMED
    return passed_by_name(place) or Stray(place, str(PurePosixPath(place).parent), reason)


def _require_columns(table: Table, columns: Columns) -> None:
    """Raises UserError for a column that the table does not have."""
    named = {"--file-column": (columns.file,), "--label-columns": columns.labels}
    optional = {"--group-column": columns.group, "--split-column": columns.split}
    named |= {option: (name,) for option, name in optional.items() if name}
    for option, names in named.items():
        for name in names:
            if name not in table.header:
                raise UserError(
                    f"{table.path} has no column {name}, which {option} names; it has {', '.join(table.header)}"
                )


def _rows(table: Table, columns: Columns) -> list[_Row]:
    """Returns what the rows say, a file once; UserError for a file with two labels, groups or splits."""
    files = table.column(columns.file, cells.file)
    labels = _labels(table, columns)
    groups = table.column(columns.group, cells.text) if columns.group else [""] * len(files)
    splits = table.column(columns.split, cells.split) if columns.split else [""] * len(files)
    if columns.split and "" in splits:
        raise table.error(splits.index(""), columns.split, "the split is missing, and other rows have one")
    rows: dict[str, _Row] = {}
    for index, (file, *told) in enumerate(zip(files, labels, groups, splits, strict=True)):
        row = _Row(table.rows[index][0], file, *told)
        first = rows.setdefault(file, row)
        for name, value in zip(("label", "group", "split"), told, strict=True):
            if value != getattr(first, name):
                told_first = f"{getattr(first, name) or 'none'} in row {first.number}"
                raise table.error(
                    index, columns.file, f"{file} has the {name} {value or 'none'} here, and {told_first}"
                )
    return list(rows.values())


def _labels(table: Table, columns: Columns) -> list[str]:
    """Returns the class of every row: the cell, or the one column that is 1."""
    if len(columns.labels) == 1:
        (name,) = columns.labels
        labels = table.column(name, cells.text)
        if "" in labels:
            raise table.error(labels.index(""), name, "the label is missing")
        return labels
    given = {name: table.column(name, _truth) for name in columns.labels}
    labels = []
    for index in range(len(table.rows)):
        present = [name for name, values in given.items() if values[index]]
        if len(present) != 1:
            told = " and ".join(present) if present else "none"
            raise table.error(
                index,
                present[-1] if present else columns.labels[0],
                f"the row is of {told} of the classes, and an image has exactly one: findings that occur together are "
                "not supported",
            )
        labels += present
    return labels


def _truth(cell: str) -> bool:
    """Returns whether a cell says yes."""
    if cell.lower() in _TRUE:
        return True
    if cell.lower() in _FALSE or is_missing(cell):
        return False
    raise ValueError(f"{cell!r} is neither 0 nor 1")


def _classes_of(table: Table, columns: Columns, rows: Sequence[_Row]) -> tuple[str, ...]:
    """Returns the classes that the table names."""
    if len(columns.labels) > 1:
        return columns.labels
    return tuple(sorted({row.label for row in rows}))


def _label(row: _Row, classes: tuple[str, ...], table: Table, columns: Columns) -> int:
    """Returns the index of a row's class."""
    if row.label not in classes:
        raise UserError(
            f"{table.path}, row {row.number}, column {columns.labels[0]}: {row.label!r} is none of the classes "
            f"{', '.join(classes)}"
        )
    return classes.index(row.label)


def _places(
    found: dict[str, tuple[int, int]], files: Sequence[str], table: Table, folder: Path, column: str
) -> list[str]:
    """Returns where each file lies below the folder: at its path, or under its name where that is there once."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for place in found:
        by_name[PurePosixPath(place).name].append(place)
    places, missing = [], []
    for file in files:
        path = str(PurePosixPath(file))
        candidates = [path] if path in found else by_name.get(path, [])
        if len(candidates) > 1:
            raise UserError(
                f"{table.path}, column {column}: {file} lies in {folder} {len(candidates)} times "
                f"({', '.join(candidates[:LISTED])}): give its path"
            )
        places += candidates
        missing += [] if candidates else [file]
    if missing:
        more = f" and {len(missing) - LISTED:,} more" if len(missing) > LISTED else ""
        raise UserError(
            f"{table.path} names {len(missing):,} of {len(files):,} files that are not in {folder}: "
            f"{', '.join(missing[:LISTED])}{more}"
        )
    return places


def _require_whole_groups(entries: Sequence[Entry], columns: Columns) -> None:
    """Raises UserError for a group with images in two splits, of which one was to be unseen."""
    splits: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.group and entry.split:
            splits[entry.group].add(entry.split)
    torn = sorted(group for group, names in splits.items() if len(names) > 1)
    if torn:
        more = f" and {len(torn) - LISTED:,} more" if len(torn) > LISTED else ""
        told = f"{', '.join(torn[:LISTED])}{more}"
        raise UserError(
            f"{columns.table} has groups of column {columns.group} in two splits, {told}: put each into one"
        )
