"""NIH ChestX-ray14 as it is published: a table of labels, folders of images, and the official lists of the splits.

Wang, Peng, Lu, Lu, Bagheri, Summers: ChestX-ray8, CVPR 2017. An image lies anywhere below the folder, as in
`images_001/images/00000001_000.png`.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from cxr_jax.data.sources.finding_cells import cells_of_joined_names
from cxr_jax.data.sources.labels_table import TabledImages, few_of, listing_of
from cxr_jax.data.sources.layout import PHANTOM_MARK
from cxr_jax.data.sources.table_rows import Columns, Row, Rows, once_each, with_findings
from cxr_jax.errors import UserError
from cxr_jax.runs import cells
from cxr_jax.runs.table import Table, read_table
from cxr_jax.vocabulary import FINDINGS

NIH_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""In the order in which the paper lists them."""

TABLE_PATTERN = "Data_Entry_2017*.csv"
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
BOX_LIST = "BBox_List_2017.csv"
"""The boxes of some findings, which preparation leaves alone; see `box_list`."""

FILE, LABELS, GROUP = "Image Index", "Finding Labels", "Patient ID"
KEPT = {"age": "Patient Age", "sex": "Patient Gender", "view": "View Position"}

OLDEST = 110
"""Years; the table holds ages up to 414, which are slips of the pen."""

_AGE = re.compile(r"0*(\d+)([YMDWymdw]?)")


def nih_table(folder: Path) -> Path | None:
    """Returns the table of labels where `folder` holds NIH ChestX-ray14; None where it does not.

    Raises:
        UserError: there are several.
    """
    tables = sorted(folder.glob(TABLE_PATTERN))
    if len(tables) > 1:
        raise UserError(f"{folder} holds {' and '.join(table.name for table in tables)}: keep one table of labels")
    return tables[0] if tables else None


class NihSource(TabledImages):
    """The images of NIH ChestX-ray14, or of phantoms in its layout."""

    kind = "nih"

    def __init__(self, folder: Path, table_path: Path, findings: tuple[str, ...] = ()) -> None:
        """Reads the table and the lists, and lists the folder, without reading images.

        `findings` are those to learn, in their order; without any they are all that a training image shows.

        Raises:
            UserError: the table lacks a column, names something that is no finding of this set, or files that are not
                there; a file has two labels; or the lists do not part the patients.
        """
        for name in findings:
            if name not in NIH_FINDINGS:
                raise UserError(f"--classes names {name}, and the findings of NIH are {', '.join(NIH_FINDINGS)}")
        table = read_table(table_path, ())
        for column in (FILE, LABELS, GROUP):
            if column not in table.header:
                raise UserError(f"{table_path} has no column {column}; it has {', '.join(table.header)}")
        columns = Columns(table_path, FILE, (LABELS,), GROUP, findings=True)
        rows, lists = _rows(table), [folder / name for name in (TRAIN_LIST, TEST_LIST)]
        if any(path.is_file() for path in lists):
            rows = dataclasses.replace(rows, rows=_with_official_splits(rows.rows, *lists))
        rows = with_findings(rows, NIH_FINDINGS, findings)
        phantom = (folder / PHANTOM_MARK).is_file()
        super().__init__(
            folder,
            listing_of(
                folder,
                rows,
                columns,
                FINDINGS,
                repr(rows.classes),
                name="phantom_findings" if phantom else "nih",
                phantom=phantom,
                tables=(*lists, folder / PHANTOM_MARK, folder / BOX_LIST),
            ),
        )


def _rows(table: Table) -> Rows:
    """Returns what the table says of every file, without splits."""
    found = cells_of_joined_names(table, LABELS, NIH_FINDINGS, "unknown")
    files, groups = table.column(FILE, cells.file), table.column(GROUP, cells.text)
    told = list(zip(files, found.cells, groups, [""] * len(files), strict=True))
    return Rows(once_each(table, FILE, told, _known(table)), NIH_FINDINGS, found.notes)


def _known(table: Table) -> list[tuple[tuple[str, str], ...]]:
    """Returns age in years, sex and view of every row, as far as the table has such columns."""
    kept = {name: column for name, column in KEPT.items() if column in table.header}
    columns = [table.column(column, years if name == "age" else cells.text) for name, column in kept.items()]
    return [tuple(zip(kept, values, strict=True)) for values in zip(*columns, strict=True)]


def years(cell: str) -> str:
    """Returns an age in whole years, written as 58, 058Y or 011M; empty where it is missing or cannot be one."""
    match = _AGE.fullmatch(cell)
    if not match:
        return ""
    age = int(match[1]) if match[2].upper() in ("", "Y") else 0
    return str(age) if age <= OLDEST else ""


def _with_official_splits(rows: list[Row], train_list: Path, test_list: Path) -> list[Row]:
    """Returns the rows with the split that one of the official lists puts them in.

    Raises:
        UserError: a list is missing, or a file stands in both of them or in none.
    """
    split_of: dict[str, str] = {}
    for path, split in ((train_list, "train"), (test_list, "test")):
        if not path.is_file():
            raise UserError(f"{path} is missing, and the other official list is there: put both beside the table")
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        twice = [name for name in names if name and split_of.get(name, split) != split]
        if twice:
            raise UserError(f"{train_list.name} and {test_list.name} both name {few_of(twice)}: leave one of them")
        split_of |= dict.fromkeys((name for name in names if name), split)
    without = [row.file for row in rows if row.file not in split_of]
    if without:
        raise UserError(
            f"{len(without):,} images of the table stand in neither {train_list.name} nor {test_list.name}: "
            f"{few_of(without)}; add each to one of the lists"
        )
    return [dataclasses.replace(row, split=split_of[row.file]) for row in rows]
