"""Boxes that readers drew around findings, in the layout of NIH's BBox_List_2017.csv."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.data.sources.nih import NIH_FINDINGS
from cxr_jax.errors import UserError, suggestion
from cxr_jax.images.boxes import Box
from cxr_jax.runs import cells
from cxr_jax.runs.files import csv_text, write_text
from cxr_jax.runs.table import Table, read_table

FILE, FINDING = "Image Index", "Finding Label"
SIDES = ("Bbox [x", "y", "w", "h]")
"""The columns of a box as NIH writes them: one name with commas inside, which part it."""

SYNONYMS = {"infiltrate": "Infiltration"}
"""What the list calls otherwise than the table of labels does, in small letters."""


@dataclass(frozen=True)
class DrawnBox:
    """One row of a list."""

    file: str  # name of the image, without folders
    finding: str  # as the classes of a run or NIH's labels write it
    box: Box  # in pixels of the images that it was drawn in
    row: int  # in the file, as a spreadsheet counts


@dataclass(frozen=True)
class BoxList:
    """A list of boxes, and the file that it was read from."""

    path: Path
    boxes: tuple[DrawnBox, ...]


def read_boxes(path: Path, classes: Iterable[str]) -> BoxList:
    """Returns the boxes of a list; their findings are called as `classes` call them, or else as NIH's labels do.

    Capitals do not matter, and NIH's own synonyms are taken.

    Raises:
        UserError: there is no such table, it has other columns, a cell is no number, a box is empty, or a finding is
            neither one of `classes` nor one of NIH's.
    """
    table = read_table(path, (FILE, FINDING, *SIDES))
    missing = [name for name in (FILE, FINDING, *SIDES) if name not in table.header]
    if missing:
        raise UserError(
            f"{path} has the columns {', '.join(filter(None, table.header))}, and a list of boxes has {FILE}, "
            f"{FINDING} and {','.join(SIDES)}, as NIH's BBox_List_2017.csv: rename them"
        )
    known = {name.lower(): name for name in (*NIH_FINDINGS, *classes)}
    files, findings = table.column(FILE, cells.file), table.column(FINDING, lambda cell: _finding(cell, known))
    sides = [table.column(name, cells.finite) for name in SIDES]
    found = []
    for index, (file, finding, *numbers) in enumerate(zip(files, findings, *sides, strict=True)):
        box = Box(*numbers)
        if box.width <= 0 or box.height <= 0:
            raise table.error(index, SIDES[2], f"the box is {box.width:g} wide and {box.height:g} high: it is empty")
        found.append(DrawnBox(file, finding, box, _row(table, index)))
    return BoxList(Path(path), tuple(found))


def _finding(cell: str, known: dict[str, str]) -> str:
    name = cell if cell.lower() in known else SYNONYMS.get(cell.lower(), cell)
    if name.lower() not in known:
        hint = suggestion(name, known.values()) or f"; known are {', '.join(dict.fromkeys(known.values()))}"
        raise ValueError(f"{cell!r} is no finding of the run nor of NIH's labels{hint}")
    return known[name.lower()]


def _row(table: Table, index: int) -> int:
    return table.rows[index][0]


def write_boxes(path: Path, boxes: Iterable[tuple[str, str, Box]]) -> None:
    """Writes files, findings and their boxes in NIH's layout; UserError if that cannot be done."""
    rows = [(FILE, FINDING, *SIDES, "", "", "")]
    for file, finding, box in boxes:
        rows.append((file, finding, *(f"{value:.1f}" for value in (box.left, box.top, box.width, box.height))))
    write_text(path, csv_text(rows))
