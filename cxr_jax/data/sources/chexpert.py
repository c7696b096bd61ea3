"""CheXpert as it is published: tables train.csv and valid.csv with a column for each finding, and the images they name.

Irvin et al., AAAI 2019. A cell says 1 present, 0 absent, -1 uncertain, or nothing where the report does not mention the
finding. Sets of other hospitals that have the same columns are read alike.
"""

from __future__ import annotations

import re
from pathlib import Path

from cxr_jax.data.sources.finding_cells import FindingCells, Policies, cells_of_columns
from cxr_jax.data.sources.labels_table import TabledImages, listing_of
from cxr_jax.data.sources.passed_over import Stray
from cxr_jax.data.sources.table_rows import Columns, Row, Rows, once_each, with_findings
from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.table import Table, read_table
from cxr_jax.vocabulary import FINDINGS, NO_FINDING

TRAIN, VALID, TEST = "train.csv", "valid.csv", "test.csv"

FILE, VIEW = "Path", "Frontal/Lateral"
ABOUT = {FILE, VIEW, "Sex", "Age", "AP/PA", NO_FINDING}
"""Columns that are no findings."""

KEPT = {"age": "Age", "sex": "Sex", "view": "AP/PA"}

LATERAL = "a lateral view, and frontal ones alone are taken"
NO_TEST = "The set has no test split: valid.csv, which radiologists labelled, is the test split."
VIEWS = "Lateral views were left out: a network of this program is for frontal ones."

_SPLIT = re.compile(r"(?:.*/)?((?:train|valid|test)/.*)")
_PATIENT = re.compile(r"(?:^|/)(patient\w+)/")
_SEXES = {"female": "F", "male": "M"}


def is_chexpert(folder: Path) -> bool:
    """Returns whether `folder` holds a table train.csv with the columns of CheXpert."""
    path = folder / TRAIN
    if not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return {FILE, VIEW} <= {name.strip().strip('"') for name in file.readline().split(",")}
    except OSError:
        # what cannot be read is told where the folder is listed
        return False


class ChexpertSource(TabledImages):
    """The frontal images of CheXpert."""

    kind = "chexpert"

    def __init__(self, folder: Path, findings: tuple[str, ...] = (), policies: Policies | None = None) -> None:
        """Reads the tables and lists the folder, without reading images.

        `findings` are those to learn, in their order; without any they are all that a training image shows. Unless
        `policies` say otherwise an uncertain label is unknown, and a blank one absent, as in the paper.

        Raises:
            UserError: a table lacks a column, a cell is wrong, a file is missing or has two labels, or a patient is in
                two splits.
        """
        policies = (policies or Policies()).or_else("unknown", "absent")
        tables = {split: folder / name for split, name in _splits(folder).items()}
        read = {split: read_table(path, ()) for split, path in tables.items()}
        names = _findings(read, findings)
        rows: list[Row] = []
        notes, laterals = [], []
        for split, table in read.items():
            found = cells_of_columns(table, names, policies)
            frontal, others = _of_split(table, found, split)
            rows += frontal
            laterals += others
            notes += [f"{table.path.name}: {note}" for note in found.notes]
        notes += [NO_TEST] * (TEST not in {path.name for path in tables.values()}) + [VIEWS] * bool(laterals)
        columns = Columns(tables["train"], FILE, names, "of patients in its paths", findings=True, policies=policies)
        strays = [Stray(place, place.partition("/")[0], LATERAL) for place in laterals if (folder / place).is_file()]
        told = with_findings(Rows(rows, names, tuple(notes)), names, findings)
        super().__init__(
            folder,
            listing_of(
                folder,
                told,
                columns,
                FINDINGS,
                repr((told.classes, policies)),
                name="chexpert",
                tables=tuple(tables.values()),
                left_out=strays,
            ),
        )


def _splits(folder: Path) -> dict[str, str]:
    """Returns the table of each split: valid.csv is test where there is no other."""
    there = [name for name in (TRAIN, VALID, TEST) if (folder / name).is_file()]
    if there == [TRAIN, VALID, TEST]:
        return {"train": TRAIN, "val": VALID, "test": TEST}
    return dict(zip(("train", "test"), there, strict=False))


def _findings(tables: dict[str, Table], asked: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the columns that are labels of findings; UserError if one is missing in a table."""
    first = tables["train"]
    names = asked or tuple(name for name in first.header if name and name not in ABOUT)
    for table in tables.values():
        for name in (FILE, VIEW, *names):
            if name not in table.header:
                told = "--classes names" if name in asked else "the set needs"
                raise UserError(f"{table.path} has no column {name}, which {told}; it has {', '.join(table.header)}")
    return names


def _of_split(table: Table, found: FindingCells, split: str) -> tuple[list[Row], list[str]]:
    """Returns the rows of frontal images of one table, and the places of the lateral ones."""
    files = table.column(FILE, cells.file)
    places = [(_SPLIT.fullmatch(file) or [file, file])[1] for file in files]
    patients = [_PATIENT.search(file) for file in files]
    if None in patients:
        raise table.error(patients.index(None), FILE, "the path names no patient, as patient00001/ does")
    kept = {name: column for name, column in KEPT.items() if column in table.header}
    values = [table.column(column, cells.text) for column in kept.values()]
    known = [_known(tuple(zip(kept, told, strict=True))) for told in zip(*values, strict=True)]
    told = [(place, cell, match[1], split) for place, cell, match in zip(places, found.cells, patients, strict=True)]
    frontal = [view.lower() != "lateral" for view in table.cells(VIEW)]
    lateral = dict.fromkeys(place for place, is_frontal in zip(places, frontal, strict=True) if not is_frontal)
    rows = once_each(table, FILE, told, known)
    return [row for row in rows if row.file not in lateral], list(lateral)


def _known(told: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Returns what is known of an image with sexes as M and F; 0 years stand for an age that is not known."""
    plain = {name: _SEXES.get(value.lower(), value) if name == "sex" else value for name, value in told}
    return tuple((name, "" if (name, value) == ("age", "0") else value) for name, value in plain.items())
