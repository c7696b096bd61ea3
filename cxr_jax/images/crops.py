"""Images cut to a box and enlarged to the whole square."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from cxr_jax.images.made_rows import MadeRows

MARGIN = 0.03
"""What is kept around a predicted box, as a share of the image's side, since it is a little wrong."""


def crop_to_box(image: UInt8[np.ndarray, "S S"], box: Float[np.ndarray, 4]) -> UInt8[np.ndarray, "S S"]:
    """Returns what lies in a box, with `MARGIN` around it, enlarged to the whole square, uint8 [S, S].

    A box is left, top, right and bottom, as shares of the side.
    """
    side = len(image)
    part = np.ascontiguousarray(image[cut_by(box, side)])
    return cv2.resize(part, (side, side), interpolation=cv2.INTER_LINEAR)


def cut_by(box: Float[np.ndarray, 4], side: int) -> tuple[slice, slice]:
    """Returns rows and columns of the pixels that `crop_to_box` keeps of an image of `side` by `side`."""
    left, top = np.floor(np.clip(box[:2] - MARGIN, 0, 1) * side).astype(int)
    right, bottom = np.ceil(np.clip(box[2:] + MARGIN, 0, 1) * side).astype(int)
    return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class CroppedRows(MadeRows):
    """Images cut to their boxes when they are asked for."""

    boxes: np.ndarray  # float64 [N, 4], as of `crop_to_box`

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        images, boxes = np.asarray(self.images[index]), self.boxes[index]
        if images.ndim == 2:
            return crop_to_box(images, boxes)
        made = np.empty_like(images)
        for row, (image, box) in enumerate(zip(images, boxes, strict=True)):
            made[row] = crop_to_box(image, box)
        return made
