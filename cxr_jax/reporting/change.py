"""What is told of a network that learned on: in the terminal, and in the report."""

from __future__ import annotations

from cxr_jax.evaluation.change import Change, Changes, read_changes
from cxr_jax.evaluation.numbers import TO, number_text, with_interval
from cxr_jax.runs.folder import RunFolder


def changes_of(run: RunFolder) -> Changes | None:
    """Returns the record of a run that learned on; None if there is none."""
    path = run.change / "change.json"
    return read_changes(path) if path.is_file() else None


def change_lines(changes: Changes) -> list[str]:
    """Returns what a person should see of a record, line by line."""
    lines = [f"Before and after learning on from {changes.origin}, each at the threshold of its own run:"]
    for which, change in (("new", changes.new), ("old", changes.old)):
        if change is None:
            continue
        lines.append(f"{_images(change)}, the {which} ones")
        for title, (before, after, answer) in change.told.items():
            difference = with_interval(answer.difference, answer.interval, "+.3f", word=TO)
            lines.append(f"  {title:46} {before:.3f} -> {after:.3f}  {difference}")
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
        if change is None or "ROC-AUC" not in change.told:
            continue
        *_, answer = change.told["ROC-AUC"]
        if answer.interval is not None and answer.interval.low <= 0 <= answer.interval.high:
            told = "neither a gain nor a loss is shown"
        else:
            gained, lost = words[which]
            told = f"{number_text(abs(answer.difference))} was {gained if answer.difference > 0 else lost}"
        difference = with_interval(answer.difference, answer.interval, "+.3f", word=TO)
        sentences.append(f"On {change.data}, the {which} films, {told}: the ROC-AUC changed by {difference}.")
    return sentences
