"""Images in a folder, and rows that say which class or findings, group and split each of them has."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cxr_jax.data.sources.folder import bytes_of, files_below, head_of
from cxr_jax.data.sources.layout import require_training_images
from cxr_jax.data.sources.passed_over import Stray, grouped
from cxr_jax.data.sources.recognition import passed_by_name, why_no_image
from cxr_jax.data.sources.source import Entry, Listing, by_order
from cxr_jax.data.sources.table_rows import Columns, Row, Rows, rows_of_table
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import EXCLUSIVE, FINDINGS, Kind

LISTED = 5
"""Files that an error names."""

NOT_NAMED = "an image that the table does not name"


class TabledImages:
    """Images of a folder, at the places that a listing names."""

    kind = "table"

    def __init__(self, folder: Path, listing: Listing) -> None:
        self._folder, self.listing = folder, listing

    @contextmanager
    def opened(self) -> Iterator[TabledImages]:
        """Yields itself: nothing needs to be opened."""
        yield self

    def read(self, entry: Entry) -> bytes:
        """Returns the bytes of one file, at most one more than is allowed; UserError if it cannot be read."""
        return bytes_of(self._folder / entry.place, entry.file)


class TableSource(TabledImages):
    """The images of a folder that a table names."""

    def __init__(self, folder: Path, columns: Columns, classes: tuple[str, ...] = ()) -> None:
        """Reads the table and lists the folder, without reading images.

        `classes` are the names of the classes in the order of the labels; without them they are those of the table, in
        the order of its columns, or sorted.

        Raises:
            UserError: a column or a file is missing, a label is none of the classes, a file stands in the table with
                two labels, or a group in two splits.
        """
        _, rows = rows_of_table(columns, classes)
        kind = FINDINGS if columns.findings else EXCLUSIVE
        # what a set is known by does not change with options that it was prepared without
        told = (columns.file, columns.labels, columns.group, columns.split)
        if columns.findings or columns.kept:
            told = (*told, columns.findings, columns.policies, columns.kept)
        super().__init__(folder, listing_of(folder, rows, columns, kind, repr(told)))


def listing_of(
    folder: Path,
    rows: Rows,
    columns: Columns,
    kind: Kind,
    told: str,
    *,
    name: str = "",
    phantom: bool = False,
    tables: Sequence[Path] = (),
    left_out: Sequence[Stray] = (),
) -> Listing:
    """Returns the listing of the files of `folder` that `rows` name.

    Args:
        folder: of the images, at any depth.
        rows: what is said of files: paths below the folder, or names that are there once.
        columns: how errors call the table and its columns.
        kind: of the classes.
        told: enters the stamp of the source with what the rows say.
        name: of a published set.
        phantom: the images are drawn.
        tables: files that say what the images are, and are no strays.
        left_out: files that are not taken for another reason than that no row names them.

    Raises:
        UserError: a file is missing or there several times, a group is in two splits, or a class has no training image.
    """
    found, strays = files_below(folder)
    places = _places(found, [row.file for row in rows.rows], folder, columns)
    entries = by_order(
        Entry(
            file="/".join(part for part in (row.split, row.label if kind == EXCLUSIVE else "", place) if part),
            split=row.split or None,
            label=rows.classes.index(row.label) if kind == EXCLUSIVE else 0,
            place=place,
            group=row.group,
            findings=row.label if kind == FINDINGS else "",
            known=row.known,
        )
        for row, place in zip(rows.rows, places, strict=True)
    )
    _require_whole_groups(rows.rows, columns)
    require_training_images(entries, str(columns.table), rows.classes, kind)
    about = {columns.table.resolve(), *(path.resolve() for path in tables)}
    known_strays = {stray.file for stray in left_out}
    others = [
        _stray(place, folder)
        for place in sorted(found.keys() - set(places) - known_strays)
        if (folder / place).resolve() not in about
    ]
    digest = hashlib.sha256(told.encode())
    for entry in entries:
        also = f"{entry.findings}\0{entry.known}\0" if kind == FINDINGS or entry.known else ""
        line = f"{entry.file}\0{entry.group}\0{also}{found[entry.place]}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return Listing(
        entries,
        grouped((*strays, *others, *left_out)),
        rows.notes,
        phantom,
        digest.hexdigest(),
        rows.classes,
        kind,
        name,
    )


def _stray(place: str, folder: Path) -> Stray:
    """Returns a file that the table does not name, and why it is no part of the data set."""
    reason = why_no_image(place, lambda path: head_of(folder / path)) or NOT_NAMED
    return passed_by_name(place) or Stray(place, str(PurePosixPath(place).parent), reason)


def _places(found: dict[str, tuple[int, int]], files: Sequence[str], folder: Path, columns: Columns) -> list[str]:
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
                f"{columns.table}, column {columns.file}: {file} lies in {folder} {len(candidates)} times "
                f"({', '.join(candidates[:LISTED])}): give its path"
            )
        places += candidates
        missing += [] if candidates else [file]
    if missing:
        raise UserError(
            f"{columns.table} names {len(missing):,} of {len(files):,} files that are not in {folder}: "
            f"{few_of(missing)}; put them there, or leave their rows out of the table"
        )
    return places


def few_of(names: Sequence[str]) -> str:
    """Returns the first LISTED names, and how many more there are."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"


def _require_whole_groups(rows: Sequence[Row], columns: Columns) -> None:
    """Raises UserError for a group with images in two splits, of which one was to be unseen."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.group and row.split:
            splits[row.group].add(row.split)
    torn = sorted(group for group, names in splits.items() if len(names) > 1)
    if torn:
        raise UserError(
            f"{columns.table} has groups of column {columns.group} in two splits, {few_of(torn)}: put each into one"
        )
