"""Boxes and the hottest place of a heat map, as Wang et al., "ChestX-ray8", CVPR 2017, take them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cxr_jax.evaluation.localisation import Answer
from cxr_jax.images.boxes import Box

LEVELS = (60, 180)
"""Of 255, from which on places of a map belong together: the paper's two, which nobody chose on boxes to be scored."""

_NEIGHBOURS = np.ones((3, 3), bool)
"""Places that touch at a corner belong together, too."""


def boxes_of_map(heat: Float[np.ndarray, "H W"], levels: tuple[int, ...] = LEVELS) -> tuple[Box, ...]:
    """Returns a box around every connected region of `heat` in 0..1 that reaches a level of 255, level by level."""
    boxes = []
    for level in levels:
        regions, _ = ndimage.label(heat * 255 >= level, _NEIGHBOURS)
        for rows, columns in ndimage.find_objects(regions):
            size = (columns.stop - columns.start, rows.stop - rows.start)
            boxes.append(Box(float(columns.start), float(rows.start), *map(float, size)))
    return tuple(boxes)


def answer_of_map(heat: Float[np.ndarray, "H W"], levels: tuple[int, ...] = LEVELS) -> Answer:
    """Returns the boxes of a map over an image, and the middle of its hottest pixel; nothing of a blank one."""
    if not heat.any():
        return Answer((), None)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return Answer(boxes_of_map(heat, levels), (float(column) + 0.5, float(row) + 0.5))
