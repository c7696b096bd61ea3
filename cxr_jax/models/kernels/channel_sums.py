"""Sums over all but the channels, of several arrays in one pass.

XLA:CPU spreads a reduction over its threads only if the result is large. For several sums of one array it makes several
passes, and writes the summands to memory before each of them. One variadic reduction over short stretches of a row has
a result for every stretch, and reads and computes everything once.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from cxr_jax.models.kernels.platform import chosen_by_platform

STRETCH_BYTES = 8 * 1024
"""A stretch is read once for every channel, so it has to stay in the first-level cache, with its like of the others."""


def channel_sums(*operands: Array) -> tuple[Array, ...]:
    """Returns the sum [C] of each of `operands`, all [B, H, W, C] and of one dtype."""
    return chosen_by_platform(*operands, cpu=_by_stretches, default=_at_once)


def _at_once(*operands: Array) -> tuple[Array, ...]:
    return tuple(jnp.sum(operand, (0, 1, 2)) for operand in operands)


def _by_stretches(*operands: Array) -> tuple[Array, ...]:
    batch, height, width, channels = operands[0].shape
    stretch = stretch_of(width, channels * operands[0].dtype.itemsize)
    shape = (batch, height, width // stretch, stretch, channels)
    zero = jnp.zeros((), operands[0].dtype)
    sums = lax.reduce(
        tuple(operand.reshape(shape) for operand in operands),
        (zero,) * len(operands),
        lambda left, right: tuple(a + b for a, b in zip(left, right, strict=True)),
        (3,),
    )
    # without the barrier XLA joins both sums again into one with a small result
    sums = lax.optimization_barrier(sums)
    return tuple(jnp.sum(partial_sum, (0, 1, 2)) for partial_sum in sums)


def stretch_of(width: int, pixel_bytes: int) -> int:
    """Returns the longest stretch of pixels that divides a row of `width` and fits, at least 1."""
    return max(
        length
        for length in range(1, width + 1)
        if width % length == 0 and length * pixel_bytes <= max(STRETCH_BYTES, pixel_bytes)
    )
