"""What the rows of a table of labels say of files: class or findings, group, split and what else is known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from cxr_jax.data.examples import COLUMNS
from cxr_jax.data.findings import only, present_in
from cxr_jax.data.sources.finding_cells import FindingCells, Policies, cells_of_columns, cells_of_joined_names
from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.table import Table, is_missing, read_table

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what.

    Attributes:
        table: the table, with a header.
        file: its column of files: paths below the folder of images, or names that are there once.
        labels: one column of class names; or one for each class, of which exactly one is 1 in a row. Of findings one
            column of names joined by bars, or one for each finding, 1, 0, -1 (uncertain) or blank.
        group: column of what stands for a patient; empty if there is none.
        split: column of train, val or test; empty if there is none.
        findings: the labels are findings, of which an image may show several.
        policies: what is made of labels of findings that are uncertain or blank.
        kept: columns that are kept beside the labels, such as age and sex.
    """

    table: Path
    file: str
    labels: tuple[str, ...]
    group: str = ""
    split: str = ""
    findings: bool = False
    policies: Policies = field(default_factory=Policies)
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """What a table says of a file, and the number of the row in it."""

    number: int
    file: str
    label: str  # the name of a class, or the cell of `data.findings`
    group: str
    split: str
    known: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Rows:
    """The rows of a table, one a file.

    Attributes:
        rows: in the order of the table.
        classes: names of the classes or findings, in the order of the labels.
        notes: sentences for the data card.
    """

    rows: list[Row]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def rows_of_table(columns: Columns, classes: tuple[str, ...] = ()) -> tuple[Table, Rows]:
    """Returns a table and what its rows say.

    `classes` are the names in the order of the labels; without them they are those of the table, in the order of its
    columns, or sorted.

    Raises:
        UserError: a column is missing, a cell is wrong, a label is none of the classes, or a file has two labels, two
            groups or two splits.
    """
    table = read_table(columns.table, ())
    _require_columns(table, columns)
    found = _findings(table, columns, classes) if columns.findings else _exclusive(table, columns, classes)
    groups = table.column(columns.group, cells.text) if columns.group else [""] * len(table.rows)
    splits = table.column(columns.split, cells.split) if columns.split else [""] * len(table.rows)
    if columns.split and "" in splits:
        raise table.error(splits.index(""), columns.split, "the split is missing, and other rows have one")
    kept = [table.column(name, cells.text) for name in columns.kept]
    known = [tuple(zip(columns.kept, values, strict=True)) for values in zip(*kept, strict=True)]
    files = table.column(columns.file, cells.file)
    rows = once_each(table, columns.file, list(zip(files, found.cells, groups, splits, strict=True)), known)
    return table, Rows(rows, found.names, found.notes)


def with_findings(rows: Rows, names: tuple[str, ...], asked: tuple[str, ...]) -> Rows:
    """Returns rows that know of `asked` alone, or else of those of `names` that a training image shows.

    A note tells of the others.
    """
    shown = {name for row in rows.rows if row.split in ("", "train") for name in present_in(row.label)}
    chosen = asked or tuple(name for name in names if name in shown)
    without = [name for name in names if name not in shown]
    notes = list(rows.notes)
    if asked:
        notes.append(f"Of the findings of this set, those that were asked for are labels: {', '.join(asked)}.")
    elif without:
        notes.append(f"No training image shows {', '.join(without)}: a network gives no answer to that.")
    told = [replace(row, label=only(row.label, chosen)) for row in rows.rows]
    return Rows(told if chosen != names else rows.rows, chosen, tuple(notes))


def once_each(
    table: Table,
    file_column: str,
    told: list[tuple[str, str, str, str]],
    known: list[tuple[tuple[str, str], ...]],
) -> list[Row]:
    """Returns a row for each file of `told`: file, label, group and split of every row of the table.

    `known` is what else is known of each; it may be empty. UserError for a file with two labels, groups or splits.
    """
    rows: dict[str, Row] = {}
    for index, (file, *values) in enumerate(told):
        row = Row(table.rows[index][0], file, *values, known[index] if known else ())
        first = rows.setdefault(file, row)
        for name, value in zip(("label", "group", "split"), values, strict=True):
            if value != getattr(first, name):
                told_first = f"{getattr(first, name) or 'none'} in row {first.number}"
                raise table.error(index, file_column, f"{file} has the {name} {value or 'none'} here, and {told_first}")
    return list(rows.values())


def _require_columns(table: Table, columns: Columns) -> None:
    """Raises UserError for a column that the table does not have, or that cannot be kept under its name."""
    named = {"--file-column": (columns.file,), "--label-columns": columns.labels, "--keep-columns": columns.kept}
    optional = {"--group-column": columns.group, "--split-column": columns.split}
    named |= {option: (name,) for option, name in optional.items() if name}
    for option, names in named.items():
        for name in names:
            if name not in table.header:
                raise UserError(
                    f"{table.path} has no column {name}, which {option} names; it has {', '.join(table.header)}"
                )
    for name in columns.kept:
        if name in COLUMNS:
            raise UserError(f"a column called {name} cannot be kept: the prepared table has one of that name already")


def _findings(table: Table, columns: Columns, names: tuple[str, ...]) -> FindingCells:
    """Returns the findings of every row; `names` are those that the user lists."""
    policies = columns.policies.or_else("unknown", "unknown")
    if len(columns.labels) == 1:
        return cells_of_joined_names(table, columns.labels[0], names, policies.blank)
    unknown = [name for name in names if name not in columns.labels]
    if unknown:
        raise UserError(
            f"--classes names {unknown[0]}, which is no column of --label-columns: {', '.join(columns.labels)}"
        )
    return cells_of_columns(table, names or columns.labels, policies)


def _exclusive(table: Table, columns: Columns, classes: tuple[str, ...]) -> FindingCells:
    """Returns the class of every row: the cell, or the one column that is 1."""
    if len(columns.labels) > 1:
        labels, known = _of_one_column_each(table, columns), classes or columns.labels
    else:
        (name,) = columns.labels
        labels = table.column(name, cells.text)
        if "" in labels:
            raise table.error(labels.index(""), name, "the label is missing")
        known = classes or tuple(sorted(set(labels)))
    for (number, _), label in zip(table.rows, labels, strict=True):
        if label not in known:
            raise UserError(
                f"{table.path}, row {number}, column {columns.labels[0]}: {label!r} is none of the classes "
                f"{', '.join(known)}"
            )
    return FindingCells(known, labels)


def _of_one_column_each(table: Table, columns: Columns) -> list[str]:
    """Returns the class of every row of a table with a column for each."""
    given = {name: table.column(name, _truth) for name in columns.labels}
    labels = []
    for index in range(len(table.rows)):
        present = [name for name, values in given.items() if values[index]]
        if len(present) != 1:
            told = " and ".join(present) if present else "none"
            raise table.error(
                index,
                present[-1] if present else columns.labels[0],
                f"the row is of {told} of the classes, and an image has exactly one: say --findings if several may "
                "occur together, or none",
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
