"""Images that are made of others when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MadeRows:
    """What is made of the rows of `images`, in the same shape; it is read as an array is."""

    images: np.ndarray  # uint8 [N, S, S], or rows of a memory-mapped file that are read when they are needed

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
        raise NotImplementedError

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Returns all the images, made in memory."""
        return np.asarray(self[:], dtype=dtype)
