"""Reading a table of text cells column by column, with errors that name the row and the column.

Programs write tables in many ways: with commas, semicolons or tabs, in UTF-8 or UTF-16, with NA for a missing cell.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cxr_jax.errors import UserError

Value = TypeVar("Value")

_SEPARATORS = (",", ";", "\t", "|")

# how R, pandas, spreadsheets and SAS write that there is nothing
_MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "missing", ".", "-", "–", "?"}

# the line by which a spreadsheet is told the separator
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')


def is_missing(cell: str) -> bool:
    """Returns True for an empty cell and for the words by which programs say that a value is missing (NA, NaN ...)."""
    return cell.lower() in _MISSING


class Table:
    """The cells of a table as text without surrounding blanks."""

    def __init__(self, path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> None:
        """Keeps the header's names and, for every row, its number in the file and its cells.

        Raises:
            UserError: a name occurs twice, or a row is longer or shorter than the header.
        """
        self.path, self.header, self.rows = path, header, rows
        for name in header:
            if name and header.count(name) > 1:
                raise UserError(f"{path} has the column {name} {header.count(name)} times: keep one")
        for number, cells in rows:
            if len(cells) != len(header):
                raise UserError(
                    f"{path}, row {number} has {len(cells)} cells, but the header has {len(header)} columns"
                )

    def error(self, row: int, name: str, sentence: str) -> UserError:
        """Returns the error that says `sentence` of the cell in the row of that index and the column of that name."""
        return UserError(f"{self.path}, row {self.rows[row][0]}, column {name}: {sentence}")

    def cells(self, name: str) -> list[str]:
        """Returns the cells of a column that the header has."""
        index = self.header.index(name)
        return [cells[index] for _, cells in self.rows]

    def is_blank(self, names: Sequence[str]) -> bool:
        """Returns True if every cell of these columns is missing; NaN is there, a number that could not be computed."""
        cells = [cell for name in names for cell in self.cells(name)]
        return all(is_missing(cell) and "nan" not in cell.lower() for cell in cells)

    def column(self, name: str, parse: Callable[[str], Value], default: Value | None = None) -> list[Value]:
        """Returns the parsed cells of a column; `default` for every row if the header has no such column.

        Raises:
            UserError: `parse` raised a ValueError, whose sentence it repeats with the place.
        """
        if name not in self.header:
            if default is None:
                raise UserError(f"{self.path} has no column {name}; it has {', '.join(self.header)}")
            return [default] * len(self.rows)
        values = []
        for row, cell in enumerate(self.cells(name)):
            try:
                values.append(parse(cell))
            except ValueError as error:
                raise self.error(row, name, str(error)) from error
        return values

    def check_unique(self, name: str, values: Sequence[str]) -> None:
        """Raises UserError at the first value of a column that occurred above."""
        seen: dict[str, int] = {}
        for row, value in enumerate(values):
            if value in seen:
                first = self.rows[seen[value]][0]
                raise self.error(row, name, f"{value} stands in row {first} already; every one may occur once")
            seen[value] = row


def read_table(path: str | Path, names: Sequence[str]) -> Table:
    """Reads a table with a header and at least one row.

    Rows are counted as in a spreadsheet, the header is row 1. Cells are separated by commas, semicolons, tabs or bars,
    whichever parts the header into most names, or else by spaces.

    Args:
        path: a text file in UTF-8, or in UTF-16 with its byte order mark.
        names: the known names of columns, which the header may write in capitals or small letters.

    Raises:
        UserError: the file is missing, unreadable, empty, without rows, or no table.
    """
    path = Path(path)
    text = _text(path)
    stated = _SEPARATOR_LINE.fullmatch(text.partition("\n")[0])
    separator = stated.group(1) if stated else _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator == " ")
    lines = []
    try:
        for number, cells in enumerate(reader, start=1):
            if any(cell.strip() for cell in cells) and not (stated and number == 1):
                lines.append((number, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV table: line {reader.line_num}, {error}") from error
    if not lines:
        raise UserError(f"{path} is empty: a table has a header and one row an image")
    if len(lines) == 1:
        raise UserError(f"{path} has a header but no row: there is nothing to judge")
    known = {name.lower(): name for name in names}
    header = [known.get(name.lower(), name) for name in lines[0][1]]
    return Table(path, *_aligned(header, lines[1:]))


def _text(path: Path) -> str:
    """Returns the text of the file at `path`, line breaks as line feeds."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the table in it, a CSV file")
    if not path.is_file():
        raise UserError(f"there is no table at {path}: no such file")
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        # the signature that some spreadsheets put in front would otherwise become part of the first name
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a CSV table: it is not UTF-8 text") from error
    except PermissionError as error:
        raise UserError(f"no permission to read {path}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _separator(text: str) -> str:
    """Returns the character that parts the first line of `text` into most cells."""
    first = next((line for line in text.split("\n") if line.strip()), "")

    def cells(separator: str) -> int:
        return len(next(csv.reader([first[:10_000]], delimiter=separator), []))

    best = max(_SEPARATORS, key=cells)
    return best if cells(best) > 1 or '" "' not in first else " "


def _aligned(header: list[str], rows: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns header and rows, where all rows have a cell more or less by the habit of a program, at equal length."""
    # spreadsheets and NIH's list of boxes end lines in commas without a column
    while len(header) > 1 and not header[-1] and not any(any(cells[len(header) - 1 :]) for _, cells in rows):
        header = header[:-1]
    columns = len(header)
    # R writes the numbers of the rows without a name above them
    if all(len(cells) == columns + 1 and cells[0].isdecimal() and cells[-1] for _, cells in rows):
        return ["", *header], rows
    return header, [(number, cells[:columns] if not any(cells[columns:]) else cells) for number, cells in rows]
