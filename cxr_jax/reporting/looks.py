"""How often test images were looked at, by a run and by all runs together, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxr_jax.reporting.wording import times
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import look_of_predictions


def told_look(number: int) -> str:
    """Returns which look at test an evaluation was, and what its number means."""
    told = f"This was look {number} at the test split"
    if number == 1:
        return f"{told}, the first of this run."
    return f"{told}. Results on test stay honest only as long as nothing is chosen by them."


def told_stored(run: RunFolder) -> str:
    """Returns of which look at test the predictions of a run are, which were judged again."""
    number, _ = look_of_predictions(run) or (0, {})
    return f"No look at the test split was added: the stored predictions of look {number} were judged again."


def told_together(looks: Sequence[dict[str, Any]]) -> str | None:
    """Returns how often all runs had looked at the test images of a ledger's last look, as the rest of a sentence.

    None if this run alone had looked, or if nobody counted. It says what the count cannot know: earlier versions
    counted by the fingerprint of the data, under which other preparations of the same images go unseen.
    """
    last = looks[-1]
    together = last.get("looks_at_these_images") or 0
    by_content = "test_images_sha256" in last
    parts = []
    if together > len(looks):
        told = "at these test images, or at some of them," if by_content else "at them"
        unseen = "" if by_content else ", not counting the same images prepared in another way, which this count misses"
        parts.append(f"looked {told} {times(together)}{unseen}")
    if unknown := last.get("looks_at_unknown_images"):
        parts.append(
            f"looked {times(unknown)} at images that are not known, since an earlier version counted them by data that "
            "are no longer here"
        )
    return ", and ".join(parts) or None
