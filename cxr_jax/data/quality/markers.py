"""Signs that technicians put beside the body: letters, numbers, small plates."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

_BORDER = 0.2  # width of the zone that is searched, as a share of the side

_STROKE = np.ones((9, 9), np.uint8)
_NEAR, _FAR = np.ones((3, 3), np.uint8), np.ones((9, 9), np.uint8)
_REACH = 5  # pixels around a sign that the larger dilation touches

_RISE = 80  # grey levels by which a stroke stands out of what is within four pixels
_BRIGHT = 150  # grey level that a sign reaches
_ALONE = 60  # grey levels by which a sign outshines its surroundings; bones go on beyond their brightest part
_AREA = (4, 300)  # pixels
_LONGEST = 30  # pixels
_SHORTEST = 4  # pixels that a sign is high
_SLIMMEST = 4  # longer over shorter side


def marker_zone(side: int) -> Bool[np.ndarray, "{side} {side}"]:
    """Returns the outer fifth of a square, where markers are looked for, as a mask."""
    width = round(_BORDER * side)
    zone = np.ones((side, side), bool)
    zone[width:-width, width:-width] = False
    return zone


def find_markers(square: UInt8[np.ndarray, "S S"]) -> Bool[np.ndarray, "S S"]:
    """Returns the mask of bright small signs in the outer fifth of a square of 224 pixels.

    The white top-hat transform (Meyer 1979; Serra 1982) finds thin bright strokes. Of these count connected parts that
    have the size and shape of a letter and are surrounded by darker pixels on all sides. Letters on the body, and large
    plates, are missed.
    """
    rise = cv2.morphologyEx(square, cv2.MORPH_TOPHAT, _STROKE)
    strokes = ((rise >= _RISE) & (square >= _BRIGHT) & marker_zone(len(square))).astype(np.uint8)
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    is_sign = np.zeros(count, bool)
    for part in range(1, count):
        is_sign[part] = _has_shape_of_sign(boxes[part]) and _stands_alone(square, parts, part, boxes[part])
    return is_sign[parts]


def _has_shape_of_sign(box: np.ndarray) -> bool:
    width, height, area = box[cv2.CC_STAT_WIDTH], box[cv2.CC_STAT_HEIGHT], box[cv2.CC_STAT_AREA]
    longer, shorter = max(width, height), min(width, height)
    fits = _AREA[0] <= area <= _AREA[1] and longer <= _LONGEST
    return bool(fits and height >= _SHORTEST and longer <= _SLIMMEST * shorter)


def _stands_alone(square: np.ndarray, parts: np.ndarray, part: int, box: np.ndarray) -> bool:
    """Returns whether nine tenths of the ring around a part are darker than it by `_ALONE`."""
    left, top, width, height = box[: cv2.CC_STAT_AREA]
    rows = slice(max(top - _REACH, 0), top + height + _REACH)
    columns = slice(max(left - _REACH, 0), left + width + _REACH)
    own = (parts[rows, columns] == part).astype(np.uint8)
    image = square[rows, columns]
    ring = np.sort(image[(cv2.dilate(own, _FAR) - cv2.dilate(own, _NEAR)) > 0])
    return bool(ring[int(0.9 * (len(ring) - 1))] <= image[own > 0].mean() - _ALONE)
