"""Upright boxes in an image, and how far two of them cover each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A box by its left upper corner and its sides, in pixels or in any other unit."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Where it ends, to the right."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Where it ends, below."""
        return self.top + self.height

    @property
    def area(self) -> float:
        """Of the whole box."""
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, to the right and down."""
        return self.left + self.width / 2, self.top + self.height / 2

    def scaled(self, across: float, down: float) -> Box:
        """Returns the same box where lengths are `across` times as long to the right, and `down` times downwards."""
        return Box(self.left * across, self.top * down, self.width * across, self.height * down)

    def holds(self, x: float, y: float) -> bool:
        """Returns whether a place lies inside: its left and upper edge belong to it, the others do not."""
        return self.left <= x < self.right and self.top <= y < self.bottom

    def lies_in(self, width: float, height: float, slack: float = 0.0) -> bool:
        """Returns whether no edge is further than `slack` outside an image of this size."""
        inside = self.left >= -slack and self.top >= -slack
        return inside and self.right <= width + slack and self.bottom <= height + slack


def common_area(first: Box, second: Box) -> float:
    """Returns the area that two boxes have in common, 0 where they do not meet."""
    across = min(first.right, second.right) - max(first.left, second.left)
    down = min(first.bottom, second.bottom) - max(first.top, second.top)
    return max(across, 0.0) * max(down, 0.0)


def intersection_over_union(first: Box, second: Box) -> float:
    """Returns the common area as a share of the area that either covers, 0 to 1; 0 where both are empty."""
    common = common_area(first, second)
    union = first.area + second.area - common
    return common / union if union > 0 else 0.0


def intersection_over_found(found: Box, truth: Box) -> float:
    """Returns the common area as a share of the area of the box that was found (IoBB of Wang et al. 2017), 0 to 1."""
    return common_area(found, truth) / found.area if found.area > 0 else 0.0


def mean_box(boxes: Iterable[Box]) -> Box:
    """Returns the box with the mean corner and the mean sides of `boxes`, of which there is at least one."""
    boxes = list(boxes)
    return Box(*(sum(values) / len(boxes) for values in zip(*map(_numbers, boxes), strict=True)))


def centred(box: Box, width: float, height: float) -> Box:
    """Returns a box of the same size in the middle of an image."""
    return Box((width - box.width) / 2, (height - box.height) / 2, box.width, box.height)


def covered_share(boxes: Sequence[Box], width: int, height: int) -> float:
    """Returns the share of an image that lies in at least one of `boxes`: the chance of a place by lot to be in one.

    The common area of several is counted once, on the grid of their edges.
    """
    columns = sorted({0.0, float(width), *(min(max(x, 0.0), width) for box in boxes for x in (box.left, box.right))})
    rows = sorted({0.0, float(height), *(min(max(y, 0.0), height) for box in boxes for y in (box.top, box.bottom))})
    covered = 0.0
    for left, right in itertools.pairwise(columns):
        for top, bottom in itertools.pairwise(rows):
            if any(box.holds((left + right) / 2, (top + bottom) / 2) for box in boxes):
                covered += (right - left) * (bottom - top)
    return covered / (width * height)


def _numbers(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.width, box.height
