"""Whose films a network learned from, in a sentence for whoever uses it."""

from __future__ import annotations

from typing import Any

from cxr_jax.runs.continued import is_continued, read_continued
from cxr_jax.runs.folder import RunFolder, read_json

OFFICIAL_TEST = {"NORMAL": 234, "PNEUMONIA": 390}
"""Images of the official test split by class: what the published results are on."""

_OFFICIAL_SUBTYPES = {"normal": 234, "bacteria": 242, "virus": 148}

GUANGZHOU = (
    "This network learned from films of children of one to five years, of one hospital in Guangzhou, and is for films "
    "like those alone. On adults' films of another hospital such a network told pneumonia from no finding no better "
    "than a coin."
)


def films_of(card: dict[str, Any], before: str = "") -> str:
    """Returns whose films a network of the data that `card` describes learned from, and what that means.

    `before` is the name of the data that it had learned from earlier; empty if there are none.
    """
    replayed = card.get("replay", {}).get("dataset")
    if card.get("phantom"):
        return "This network learned from phantoms, which a program drew: it is for nobody's films."
    if _is_official(card) and not (before or replayed):
        return GUANGZHOU
    others = f", after those of {before}" if before else ""
    if replayed:
        others += ", which were mixed in" if replayed == before else f", mixed with those of {replayed}"
    name = card.get("name") or "one collection"
    told = f"This network learned from the films of {name}{others}"
    return f"{told}, and is for films like those: on others it can be wrong unseen."


def _is_official(card: dict[str, Any]) -> bool:
    """Returns whether the counts of the test images are those of the official split; there is no other sign."""
    classes = card.get("counts", {}).get("test") or {}
    subtypes = {name: count for name, count in (card.get("subtypes", {}).get("test") or {}).items() if count}
    return classes == OFFICIAL_TEST or subtypes == _OFFICIAL_SUBTYPES


def told_films(run: RunFolder) -> str:
    """Returns the sentence about a run; empty where it has no data card, as the judgement of another program's table.

    Raises:
        UserError: the data card cannot be read.
    """
    if not run.data_card.is_file():
        return ""
    return films_of(read_json(run.data_card), read_continued(run).data if is_continued(run) else "")
