"""Which names classes other than NORMAL and PNEUMONIA, and findings, may have."""

from __future__ import annotations

import re

from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, NO_FINDING, NORMAL, Kind

_NAME = re.compile(r"\w[\w .()+&-]*")
_LONGEST = 64


def require_names(names: tuple[str, ...], kind: Kind) -> None:
    """Raises UserError unless `names` can be those of classes of this kind."""
    if kind == EXCLUSIVE:
        return require_class_names(names)
    for name in names:
        if name.lower() in (NO_FINDING.lower(), CLASS_NAMES[NORMAL].lower()):
            raise UserError(f"{name} is no finding, but says that there is none: name the findings alone")
    return _require_distinct(names, "finding")


def require_class_names(names: tuple[str, ...]) -> None:
    """Raises UserError unless `names` can be those of classes.

    A name is a folder, a column of tables and a word of reports. Capitals do not tell two folders apart.
    """
    if len(names) < 2:
        told = names[0] if names else "none"
        raise UserError(f"a network tells two classes or more apart, and --classes names {told}: name all of them")
    _require_distinct(names, "class")


def _require_distinct(names: tuple[str, ...], what: str) -> None:
    """Raises UserError for a name that no folder, column or word can have, or that occurs twice."""
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > _LONGEST or name != name.strip():
            raise UserError(
                f"{name!r} cannot be the name of a {what}: use letters, digits, spaces, dots, dashes, underscores, "
                f"brackets, + and &, {_LONGEST} at most"
            )
        if sum(name.lower() == other.lower() for other in names) > 1:
            raise UserError(f"the {what} {name} is named twice, capitals or not: name each once")
