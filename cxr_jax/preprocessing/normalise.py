"""Grey images to the three normalised channels that ImageNet networks expect."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

GREY_RANGE = 255.0
"""Largest grey level of an 8-bit image."""


def normalise(
    images: UInt8[Array, "B S S"] | Float[Array, "B S S"],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B S S C"]:
    """Repeats grey images `[B, S, S]`, uint8 or float in 0..255, over the channels of `mean` and `std`.

    Returns `(image / 255 - mean) / std` as `[B, S, S, C]` of `dtype`; `mean` and `std` are per channel and in units
    of the grey range, as timm writes them. Computed in float32 whatever `dtype` is.
    """
    # One multiply-add a value: the constants are worked out in float64 when the function is traced.
    scale = (1 / (GREY_RANGE * np.asarray(std, np.float64))).astype(np.float32)
    offset = (-np.asarray(mean, np.float64) / np.asarray(std, np.float64)).astype(np.float32)
    grey = images.astype(jnp.float32)[..., None]  # [B, S, S, 1]
    return (grey * scale.reshape(1, 1, 1, -1) + offset.reshape(1, 1, 1, -1)).astype(dtype)
