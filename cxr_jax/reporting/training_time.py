"""How long training took and how fast it was, from the lines of metrics.jsonl."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def wall_seconds(lines: Sequence[dict[str, Any]]) -> float:
    """Returns how long training took, validation included; 0 without a line."""
    return max((line["seconds"] for line in lines if line.get("seconds") is not None), default=0.0)


def images_per_second(lines: Sequence[dict[str, Any]]) -> float | None:
    """Returns the median speed of the iterations of the slowest phase, or None if no line tells a speed.

    A phase that trains the head on features computed once goes through thousands of images a second, which says
    nothing of the network; the slowest phase is the one in which most of it was at work.
    """
    phases: dict[str | None, list[float]] = {}
    for line in lines:
        if line["kind"] == "train" and line.get("images_per_second"):
            phases.setdefault(line.get("phase"), []).append(line["images_per_second"])
    return min(map(statistics.median, phases.values()), default=None)
