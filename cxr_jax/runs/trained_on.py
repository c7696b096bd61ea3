"""Whose films a network learned from, in a sentence for whoever uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxr_jax.runs.continued import is_continued, read_continued
from cxr_jax.runs.folder import RunFolder, read_json

OFFICIAL_TEST = {"NORMAL": 234, "PNEUMONIA": 390}
"""Images of the official test split by class: what the published results are on."""

_OFFICIAL_SUBTYPES = {"normal": 234, "bacteria": 242, "virus": 148}

GUANGZHOU = (
    "This network learned from films of children of one to five years, of one hospital in Guangzhou, and is for films "
    "like those alone. On adults' films of another hospital such networks told pneumonia from no finding hardly better "
    "than a coin."
)


def films_of(card: dict[str, Any], before: Sequence[str] = ()) -> str:
    """Returns whose films a network of the data that `card` describes learned from, and what that means.

    `before` are the names of the data that it had learned from earlier.
    """
    replayed = card.get("replay", {}).get("dataset")
    if card.get("phantom"):
        return "This network learned from phantoms, which a program drew: it is for nobody's films."
    if _is_official(card) and not (before or replayed):
        return GUANGZHOU
    others = f", after those of {' and '.join(before)}" if before else ""
    if replayed:
        others += ", which were mixed in" if [replayed] == [*before] else f", mixed with those of {replayed}"
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
    card = read_json(run.data_card)
    earlier = earlier_data(run)
    return films_of(card, [name for name in earlier if name != card.get("name")])


def earlier_data(run: RunFolder) -> list[str]:
    """Returns the names of the data that a run's network had learned from before; empty for one that began anew."""
    if not is_continued(run):
        return []
    continued = read_continued(run)
    return [*dict.fromkeys([continued.data, *(name for entry in continued.averaged_with for name in entry.data)])]


def learned_from(run: RunFolder) -> list[tuple[str, str]]:
    """Returns name and fingerprint of all data that a run's network learned from, as far as the runs are here.

    They are those of the run, what it mixed in, and those of the runs that it began with.
    """
    told = []
    for entry in lineage(run):
        told += trained_on(entry)
        if is_continued(entry):
            continued = read_continued(entry)
            told.append((continued.data, continued.data_fingerprint))
    return [*dict.fromkeys(told)]


def lineage(run: RunFolder) -> list[RunFolder]:
    """Returns a run and all that it began with, and these in turn, as far as they are here."""
    found = [run]
    if is_continued(run):
        continued = read_continued(run)
        for earlier in (continued.origin(run), *continued.averaged_runs(run)):
            if earlier.config.is_file():
                found += lineage(earlier)
    return found


def trained_on(run: RunFolder) -> list[tuple[str, str]]:
    """Returns name and fingerprint of the data that a run itself was trained on, and of those that it mixed in."""
    told = [(str(run.configured("data", "dataset")), read_json(run.environment).get("data_fingerprint") or "")]
    if replayed := (read_json(run.data_card).get("replay") if run.data_card.is_file() else None):
        told.append((replayed["dataset"], replayed["fingerprint"]))
    return told
