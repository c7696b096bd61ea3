"""Images cut to a box and enlarged to the whole square."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

MARGIN = 0.03
"""What is kept around a predicted box, as a share of the image's side, since it is a little wrong."""


def crop_to_box(image: UInt8[np.ndarray, "S S"], box: Float[np.ndarray, 4]) -> UInt8[np.ndarray, "S S"]:
    """Returns what lies in a box, with `MARGIN` around it, enlarged to the whole square, uint8 [S, S].

    A box is left, top, right and bottom, as shares of the side.
    """
    side = len(image)
    left, top = np.floor(np.clip(box[:2] - MARGIN, 0, 1) * side).astype(int)
    right, bottom = np.ceil(np.clip(box[2:] + MARGIN, 0, 1) * side).astype(int)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    return cv2.resize(part, (side, side), interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class CroppedRows:
    """Images cut to their boxes when they are asked for; they are read as an array is."""

    images: np.ndarray  # uint8 [N, S, S], or rows of a memory-mapped file that are read when they are needed
    boxes: np.ndarray  # float64 [N, 4], as of `crop_to_box`

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape [N, S, S] of the images."""
        return tuple(self.images.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of a grey level."""
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        images, boxes = np.asarray(self.images[index]), self.boxes[index]
        if images.ndim == 2:
            return crop_to_box(images, boxes)
        made = np.empty_like(images)
        for row, (image, box) in enumerate(zip(images, boxes, strict=True)):
            made[row] = crop_to_box(image, box)
        return made

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Returns all the images, made in memory."""
        return np.asarray(self[:], dtype=dtype)
