"""Images made clearer before a network sees them, in training and wherever it is used."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

Clarity = Literal["none", "clahe"]

_CLIP_LIMIT, _TILES = 2.0, (8, 8)


def clarified(image: UInt8[np.ndarray, "S S"], how: Clarity) -> UInt8[np.ndarray, "S S"]:
    """Returns a square as a network sees it.

    `clahe` is contrast-limited adaptive histogram equalisation by OpenCV, with 8 x 8 tiles and a clip limit of 2: each
    tile's grey levels are spread by its own histogram, whose bars are cut at twice the mean (Zuiderveld 1994).
    """
    if how == "none":
        return image
    return cv2.createCLAHE(_CLIP_LIMIT, _TILES).apply(image)
