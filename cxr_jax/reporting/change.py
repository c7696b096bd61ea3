"""What is told of a network that learned on: in the terminal, and in the report."""

from __future__ import annotations

from typing import Any

from cxr_jax.evaluation.change import AREAS, Change, Changes, read_changes
from cxr_jax.evaluation.numbers import TO, number_text, with_interval
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.vocabulary import FINDINGS


def change_contents(run: RunFolder) -> dict[str, Any]:
    """Returns what the report's template of the change names; `changes` is None if there is no record of one."""
    path = run.change / "change.json"
    changes = read_changes(path) if path.is_file() else None
    card = read_json(run.data_card) if run.data_card.is_file() else {}
    return {
        "changes": changes,
        "told_changes": told_changes(changes) if changes else (),
        "replay": card.get("replay"),
    }


def change_lines(changes: Changes) -> list[str]:
    """Returns what a person should see of a record, line by line."""
    lines = [f"Before and after learning on from {changes.origin}, each at the threshold of its own run:"]
    for which, change in (("new", changes.new), ("old", changes.old)):
        if change is None:
            continue
        lines.append(f"{_images(change)}, the {which} ones")
        for one in change.told:
            difference = with_interval(one.answer.difference, one.answer.interval, "+.3f", word=TO)
            lines.append(f"  {one.title:46} {one.before:.3f} -> {one.after:.3f}  {difference}")
    lines += told_changes(changes)
    return lines


def _images(change: Change) -> str:
    found = change.comparison
    groups = "" if found.groups is None else f" of {found.groups:,} groups"
    return f"{found.images:,} test images{groups} of {change.data}"


def told_changes(changes: Changes) -> list[str]:
    """Returns in sentences what was gained on the new test images, and what was forgotten of the old ones."""
    words = {"new": ("gained", "lost"), "old": ("gained", "forgotten")}
    sentences = []
    for which, change in (("new", changes.new), ("old", changes.old)):
        area = next((one for one in change.told if one.metric in AREAS), None) if change else None
        if area is None:
            continue
        answer = area.answer
        interval = answer.interval
        if interval is None:
            told = "neither a gain nor a loss is shown, for want of an interval"
        elif interval.low <= 0 <= interval.high:
            told = "neither a gain nor a loss is shown"
        else:
            gained, lost = words[which]
            told = f"{number_text(abs(answer.difference))} was {gained if answer.difference > 0 else lost}"
        difference = with_interval(answer.difference, answer.interval, "+.3f", word=TO)
        kind = "findings" if change.kind_of_classes == FINDINGS else "classes"
        what = f"mean ROC-AUC of {len(change.classes)} {kind}" if change.classes else "ROC-AUC"
        sentences.append(f"On {change.data}, the {which} films, {told}: the {what} changed by {difference}.")
    return sentences
