"""Small images enlarged to the side that a network sees."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cxr_jax.images.made_rows import MadeRows


@dataclass(frozen=True)
class EnlargedRows(MadeRows):
    """Images enlarged linearly when they are asked for, as all images are that are smaller than a network sees."""

    side: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape [N, side, side] of the images."""
        return (len(self.images), self.side, self.side)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        images = np.asarray(self.images[index])
        if images.ndim == 2:
            return self._enlarged(images)
        made = np.empty((len(images), self.side, self.side), images.dtype)
        for row, image in enumerate(images):
            made[row] = self._enlarged(image)
        return made

    def _enlarged(self, image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
