"""Age, sex and view among what the table of prepared data keeps of its source, by which results can be told apart.

No network sees them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.runs.table import is_missing

BANDS = {0: "under 5", 5: "5 to 17", 18: "18 to 39", 40: "40 to 59", 60: "60 and older"}
"""Bands of age, by their first year."""

OLDEST = 130
"""An age above this many years is a slip of the pen, and counts as unknown."""

_UNITS = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([ymwd])?", re.IGNORECASE)
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
_NO_SEX = {"u", "o", "unknown", "other"}


@dataclass(frozen=True)
class Attributes:
    """What is known of one image."""

    age: float | None = None  # years
    sex: str = ""  # F or M; empty where it is unknown or another
    view: str = ""  # such as PA or AP, in capitals; empty where it is unknown

    @property
    def band(self) -> str:
        """The band of its age, one of `BANDS`; empty where the age is unknown."""
        return "" if self.age is None else BANDS[max(first for first in BANDS if first <= self.age)]


_NAMES = {
    "age": ("age", "patient age", "patientage"),
    "sex": ("sex", "gender", "patient sex", "patient gender", "patientsex"),
    "view": ("view", "view position", "viewposition", "ap/pa"),
}
"""How columns are called that tell an attribute, in small letters and with blanks for underscores."""


def age(cell: str) -> float | None:
    """Returns years of a cell such as 57, 057Y, 18M or 3W; None where it is missing or beyond `OLDEST`.

    Raises:
        ValueError: it is no age.
    """
    if is_missing(cell):
        return None
    found = _AGE.fullmatch(cell)
    if found is None:
        raise ValueError(f"{cell!r} is no age in years; 57, 057Y, 18M and 3W are")
    years = float(found[1]) * _UNITS[(found[2] or "y").lower()]
    return years if years <= OLDEST else None


def sex(cell: str) -> str:
    """Returns F or M, or nothing where a cell says that it is unknown or another; ValueError where it is no sex."""
    if is_missing(cell) or cell.lower() in _NO_SEX:
        return ""
    if cell.lower() not in _SEXES:
        raise ValueError(f"{cell!r} is neither F nor M")
    return _SEXES[cell.lower()]


def view(cell: str) -> str:
    """Returns a view in capitals; nothing where it is missing."""
    return "" if is_missing(cell) else cell.upper()


def attributes_of(known: Sequence[tuple[str, str]]) -> Attributes:
    """Returns what is known of one image among what its source tells, each with the name of its column.

    A cell that is no age or sex tells nothing.
    """
    told = {name.lower().replace("_", " "): cell for name, cell in known}
    found = {}
    for attribute, parse in (("age", age), ("sex", sex), ("view", view)):
        cell = next((told[name] for name in _NAMES[attribute] if name in told), "")
        with contextlib.suppress(ValueError):
            found[attribute] = parse(cell)
    return Attributes(**found)


def parts_of(known: Sequence[Attributes]) -> dict[str, dict[str, np.ndarray]]:
    """Returns for each attribute which of N images, bool [N], have each of its values: bands of age, sexes, views.

    Images of which an attribute is not known are in no part of it.
    """
    values = {
        "age": ([entry.band for entry in known], BANDS.values()),
        "sex": ([entry.sex for entry in known], ("F", "M")),
        "view": ([entry.view for entry in known], sorted({entry.view for entry in known} - {""})),
    }
    return {
        attribute: {value: np.array([each == value for each in of_images], bool) for value in names}
        for attribute, (of_images, names) in values.items()
    }
