"""Reading a CSV table column by column, with errors that name the row and the column."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cxr_jax.errors import UserError

Value = TypeVar("Value")


class Table:
    """The cells of a CSV table as text without surrounding blanks."""

    def __init__(self, path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> None:
        """Keep the header's names and, for every row, its number in the file and its cells.

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
        """Return the error that says `sentence` of the cell in the row of that index and the column of that name."""
        return UserError(f"{self.path}, row {self.rows[row][0]}, column {name}: {sentence}")

    def cells(self, name: str) -> list[str]:
        """Return the cells of a column that the header has."""
        index = self.header.index(name)
        return [cells[index] for _, cells in self.rows]

    def is_blank(self, names: Sequence[str]) -> bool:
        """True if every cell of these columns is empty."""
        return not any(cell for name in names for cell in self.cells(name))

    def column(self, name: str, parse: Callable[[str], Value], default: Value | None = None) -> list[Value]:
        """Return the parsed cells of a column; `default` for every row if the header has no such column.

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
        """Raise UserError at the first value of a column that occurred above."""
        seen: dict[str, int] = {}
        for row, value in enumerate(values):
            if value in seen:
                first = self.rows[seen[value]][0]
                raise self.error(row, name, f"{value} stands in row {first} already; every one may occur once")
            seen[value] = row


def read_table(path: str | Path) -> Table:
    """Read a CSV file with a header and at least one row; rows are counted as in a spreadsheet, the header is row 1.

    Raises:
        UserError: the file is missing, unreadable, empty, without rows, or no table separated by commas.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no table at {path}: no such file")
    try:
        # The signature that some spreadsheets put in front would otherwise become part of the first name.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a CSV table: it is not UTF-8 text") from error
    except PermissionError as error:
        raise UserError(f"no permission to read {path}") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    lines = []
    try:
        for number, cells in enumerate(reader, start=1):
            if any(cell.strip() for cell in cells):
                lines.append((number, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV table: line {reader.line_num}, {error}") from error
    if not lines:
        raise UserError(f"{path} is empty: a table has a header and one row an image")
    header = lines[0][1]
    if len(header) == 1 and any(separator in header[0] for separator in ";\t|"):
        raise UserError(f"{path} is not separated by commas: save it as a CSV file with commas")
    if len(lines) == 1:
        raise UserError(f"{path} has a header but no row: there is nothing to judge")
    return Table(path, header, lines[1:])
