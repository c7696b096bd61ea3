"""A heat map laid over the radiograph that it explains, at the radiograph's own size."""

from __future__ import annotations

import cv2
import numpy as np

from cxr_jax.data.decode import Resize

OPACITY = 0.55
"""Share of the colour where the heat is highest; half the heat has about half of it, no heat has none."""

HOTTEST_COLOUR = 220
"""Where on the colour map's 0..255 the heat ends: Inferno's last colours are as pale as bone."""


def place_on_original(heat: np.ndarray, height: int, width: int, resize: Resize) -> np.ndarray:
    """Stretches `heat` [h, w] in 0..1, a map of the network's square input, over the image that the input came from.

    The inverse of `data.decode.to_square`: `squash` stretches both axes by themselves, `pad` leaves out what lies on
    the padding, `crop` fills the central square and leaves 0 where the network did not look. Bilinear between the
    centres of the cells; returns float32 `[height, width]` in 0..1.
    """
    heat = np.ascontiguousarray(heat, np.float32)
    if resize == "squash":
        return cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    side = max(height, width) if resize == "pad" else min(height, width)
    square = cv2.resize(heat, (side, side), interpolation=cv2.INTER_LINEAR)
    top, left = abs(side - height) // 2, abs(side - width) // 2
    if resize == "pad":
        return square[top : top + height, left : left + width]
    placed = np.zeros((height, width), np.float32)
    placed[top : top + side, left : left + side] = square
    return placed


def overlay(grey: np.ndarray, heat: np.ndarray, opacity: float = OPACITY) -> np.ndarray:
    """Returns a radiograph uint8 `[H, W]` coloured by its heat map float `[H, W]` in 0..1, as RGB uint8 `[H, W, 3]`.

    The colours are those of the map Inferno, whose lightness grows with the heat for every kind of colour vision. Where
    there is no heat the radiograph is left as it is, bit by bit.
    """
    levels = np.rint(HOTTEST_COLOUR * heat).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = (opacity * heat)[..., None].astype(np.float32)
    blended = grey[..., None] * (1 - share) + colours * share
    return np.rint(blended).astype(np.uint8)
