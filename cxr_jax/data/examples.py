"""The table of prepared radiographs: one row an image, in the order of the stored records."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cxr_jax.errors import UserError
from cxr_jax.runs import files


@dataclass(frozen=True)
class Example:
    """One radiograph of the prepared data."""

    file: str  # path in the source: split/CLASS/name, or CLASS/name where the source has no splits
    split: str  # one of SPLIT_NAMES, as the source has it or as preparation cut it
    subtype: str  # one of SUBTYPE_NAMES
    label: str  # one of the classes of the data; of findings the cell that says which there are, see `findings`
    group: str  # the best stand-in for a patient; the file itself where the source tells none
    width: int  # of the original image, in pixels
    height: int
    sha256: str  # of the image as it is stored: the encoded file, or the PNG of a DICOM file; hexadecimal
    known: tuple[tuple[str, str], ...] = ()  # what else the source tells, by name, such as age, sex and view


COLUMNS = tuple(entry.name for entry in fields(Example) if entry.name != "known")
"""Of every table; those of what else is known follow."""


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Writes the table as CSV, atomically; what else is known has the same names in all rows.

    Raises:
        UserError: the file cannot be written.
    """
    examples = tuple(examples)
    rows = [(*COLUMNS, *(name for name, _ in (examples[0].known if examples else ())))]
    for example in examples:
        rows.append((*(getattr(example, name) for name in COLUMNS), *(value for _, value in example.known)))
    files.write_text(path, files.csv_text(rows))


def read_examples(path: Path, *, advice: str = "prepare the data again") -> tuple[Example, ...]:
    """Reads the table that `write_examples` wrote; `advice` ends the sentence if that is impossible.

    Raises:
        UserError: the file is missing or is not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        count = len(COLUMNS)
        if not rows or tuple(rows[0][:count]) != COLUMNS or any(len(row) != len(rows[0]) for row in rows):
            raise ValueError("not the columns of an example")
        names = rows[0][count:]
        return tuple(
            Example(
                *row[:5],
                width=int(row[5]),
                height=int(row[6]),
                sha256=row[7],
                known=tuple(zip(names, row[count:], strict=True)),
            )
            for row in rows[1:]
        )
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table of prepared examples: {advice}") from error


def fingerprint(examples: Sequence[Example]) -> str:
    """Returns the sha256 of what the data set holds, hexadecimal: splits, classes, files and their contents.

    The order of the examples and the place of the source do not enter.
    """
    return _sha256_of((example.split, example.label, example.file, example.sha256) for example in examples)


def groups_fingerprint(examples: Sequence[Example]) -> str:
    """Returns the sha256 of which image is of which group, hexadecimal; the order of the examples does not enter."""
    return _sha256_of((example.file, example.group) for example in examples)


def _sha256_of(rows: Iterable[tuple[str, ...]]) -> str:
    digest = hashlib.sha256()
    for row in sorted(rows):
        digest.update("\0".join(row).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()
