"""How one cell of a predictions table is read: what programs write for a class, a split, a number, and for nothing.

Every function returns the value of a cell, or raises a ValueError that says in one sentence what is wrong with it.
"""

from __future__ import annotations

import math

from cxr_jax.runs.table import is_missing
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL, PNEUMONIA, SPLIT_NAMES

TABLE_VERSION = 1
"""Version of the table's columns, written into every row's `schema_version`."""


def text(cell: str) -> str:
    """Returns the cell as it is, empty where it says that nothing is known."""
    return "" if is_missing(cell) else cell


def file(cell: str) -> str:
    """Returns the name of an image."""
    if not cell:
        raise ValueError("the name of the image is missing")
    return cell


_SPLITS = {
    **{name: name for name in SPLIT_NAMES},
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}


def split(cell: str) -> str:
    """Returns one of SPLIT_NAMES, by any of its usual names; empty where the split is not known."""
    if is_missing(cell):
        return ""
    if cell.lower() not in _SPLITS:
        raise ValueError(f"unknown split {cell!r}; a split is one of {', '.join(SPLIT_NAMES)}")
    return _SPLITS[cell.lower()]


# a column of integers comes out of some programs as 0.0 and 1.0, one of truth values as words
_LABELS = {"0": NORMAL, "1": PNEUMONIA, "0.0": NORMAL, "1.0": PNEUMONIA, "false": NORMAL, "true": PNEUMONIA}


def label(cell: str) -> int:
    """Returns the index of the class in CLASS_NAMES."""
    if cell.upper() in CLASS_NAMES:
        return CLASS_NAMES.index(cell.upper())
    number = _LABELS.get(_with_point(cell).lower())
    if number is None:
        raise ValueError(f"unknown label {cell!r}; a label is {' or '.join(CLASS_NAMES)}, or 0 or 1 in that order")
    return number


def _with_point(cell: str) -> str:
    """Returns a number that is written with a decimal comma with a decimal point."""
    return cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell


def finite(cell: str) -> float:
    """Returns a finite number."""
    try:
        value = float(_with_point(cell))
    except ValueError as error:
        if is_missing(cell):
            raise ValueError("the number is missing") from error
        raise ValueError(f"{cell!r} is not a number") from error
    if not math.isfinite(value):
        raise ValueError(f"{cell} is not a finite number")
    return value


def probability(cell: str) -> float:
    """Returns a number from 0 to 1."""
    value = finite(cell)
    if not 0 <= value <= 1:
        raise ValueError(f"{cell} is not a probability from 0 to 1")
    return value


def version(cell: str) -> int:
    """Returns the version of the table's columns, which must not be newer than this program."""
    if is_missing(cell):
        return TABLE_VERSION
    stated = cell.removesuffix(".0")
    if not stated.isdecimal() or int(stated) > TABLE_VERSION:
        raise ValueError(f"this cxr_jax reads tables up to version {TABLE_VERSION}, not {cell!r}; update cxr_jax")
    return int(stated)
