#!/usr/bin/env python
"""Writes a table of two classes from NIH's table of findings: PNEUMONIA, and NORMAL for No Finding.

    .venv/bin/python scripts/nih_pneumonia_table.py Data_Entry_2017.csv pneumonia.csv
    .venv/bin/python scripts/nih_pneumonia_table.py Data_Entry_2017.csv pneumonia.csv --images FOLDER

Films with other findings and without pneumonia are left out, and with --images those whose file is not in the folder.
The split is test for patients with an odd number, and train for the others. `cxr-jax prepare FOLDER --table
pneumonia.csv --classes NORMAL PNEUMONIA --group-column patient --split-column split --keep-columns age sex view` takes
the table. No Finding is not healthy: lines, tubes and implants occur.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from cxr_jax.errors import UserError, run_script
from cxr_jax.runs.files import csv_text, write_text

COLUMNS = ("file", "label", "patient", "split", "age", "sex", "view")


def main(arguments: Sequence[str]) -> None:
    """Reads NIH's table and writes the other one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("findings", type=Path, help="NIH's table, with its own header")
    parser.add_argument("table", type=Path, help="where the table of two classes goes")
    parser.add_argument("--images", type=Path, help="folder of the images")
    options = parser.parse_args(arguments)
    if not options.findings.is_file():
        raise UserError(f"there is no table {options.findings}")
    there = None if options.images is None else {path.name for path in options.images.rglob("*.png")}
    with options.findings.open(encoding="utf-8", newline="") as file:
        rows = [row for line in csv.DictReader(file) if (row := _row(line)) and (there is None or row[0] in there)]
    write_text(options.table, csv_text([COLUMNS, *rows]))
    print(f"{options.table}: {len(rows):,} films of {len({row[2] for row in rows}):,} patients")


def _row(line: dict[str, str]) -> tuple[str, ...] | None:
    """Returns the row of a film; None for one of neither class."""
    findings = line["Finding Labels"].split("|")
    if "Pneumonia" not in findings and findings != ["No Finding"]:
        return None
    patient = line["Patient ID"]
    return (
        line["Image Index"],
        "PNEUMONIA" if "Pneumonia" in findings else "NORMAL",
        patient,
        "test" if int(patient) % 2 else "train",
        line["Patient Age"],
        line["Patient Gender"],
        line["View Position"],
    )


if __name__ == "__main__":
    run_script(main)
