"""Pooling by XLA: the largest value or the mean of every window."""

from __future__ import annotations

import numpy as np
from jax import Array, lax

from cxr_jax.models.kernels.depthwise import Padding, accumulator_of


def max_pool(x: Array, window: int, stride: int, padding: Padding) -> Array:
    """Returns the largest value of every window of `x` [B, H, W, C]: [B, H', W', C].

    What `padding` adds is below every value, so that it is never the largest.
    """
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, *_windows(window, stride, padding))


def average_pool(x: Array, window: int, stride: int, padding: Padding, *, counts_padding: bool) -> Array:
    """Returns the mean of every window of `x` [B, H, W, C]: [B, H', W', C] in the dtype of `x`.

    With `counts_padding` the zeros around `x` are values like others, as in torch; else a window's mean is that of the
    values inside the image, as in TensorFlow.
    """
    dtype = accumulator_of(x)
    sums = lax.reduce_window(x.astype(dtype), np.zeros((), dtype), lax.add, *_windows(window, stride, padding))
    if counts_padding:
        return (sums / window**2).astype(x.dtype)
    rows, columns = (
        _values_inside(length, window, stride, pads) for length, pads in zip(x.shape[1:3], padding, strict=True)
    )
    return (sums / np.multiply.outer(rows, columns)[None, :, :, None].astype(dtype)).astype(x.dtype)


def _windows(window: int, stride: int, padding: Padding) -> tuple[tuple, tuple, tuple]:
    none = (0, 0)
    return (1, window, window, 1), (1, stride, stride, 1), (none, *padding, none)


def _values_inside(length: int, window: int, stride: int, pads: tuple[int, int]) -> np.ndarray:
    """Returns how many positions of an axis every window meets, those of the padding left out."""
    is_inside = np.pad(np.ones(length), pads)
    return np.lib.stride_tricks.sliding_window_view(is_inside, window)[::stride].sum(1)
