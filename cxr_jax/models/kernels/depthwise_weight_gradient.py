"""The weight gradient of the depthwise convolution on NVIDIA's GPUs, in one pass over both operands.

cuDNN takes long to choose an algorithm for this gradient, and XLA makes one pass for every two of the k*k sums. Here a
Pallas kernel keeps all of them in registers. It is compiled by Triton, with the program that uses it.

Images are taken in groups. Every program of the grid sums over some pixels of a group, for a block of channels, and
XLA adds up what the programs leave. A batch that is spread over several GPUs stays where it is, if each has whole
groups.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

Padding = tuple[tuple[int, int], tuple[int, int]]

SUMS = 9216
"""Sums that a program keeps in registers: of every tap, for a tile of pixels and a block of channels."""

CHANNELS = 64
"""Of a block: their bfloat16 values fill a line of the cache."""

PIXELS = 1024
"""That a program goes through at least, so that what it leaves is little beside what it reads."""

WARPS = 4
"""Of 32 threads, which share a program."""


def is_possible() -> bool:
    """Returns whether Pallas can compile for the GPU of this process; newer versions of jax know some of them only."""
    try:
        getattr(triton, "get_gpu_info", lambda: None)()
    except ValueError:
        return False
    return True


def weight_gradient(
    x: Array,
    output_gradient: Array,
    *,
    window: int,
    stride: int,
    padding: Padding,
    dtype: DTypeLike,
    interpreted: bool = False,
) -> Array:
    """Returns the gradient [k, k, 1, C] of the kernel of a depthwise convolution with a square window.

    Args:
        x: what was convolved, [B, H, W, C].
        output_gradient: the gradient of the result, [B, H', W', C].
        window: k.
        stride: the steps of the window.
        padding: the zeros that were put around `x`.
        dtype: that of the sums, and of the result.
        interpreted: computes it by XLA on any platform; for tests.
    """
    batch, _, _, channels = x.shape
    group = _group(batch, output_gradient.shape[1] * output_gradient.shape[2])
    in_groups = (values.reshape(batch // group, group, *values.shape[1:]) for values in (x, output_gradient))
    partial_sums = _partial_sums(*in_groups, window, stride, padding, jnp.dtype(dtype), interpreted)
    return jnp.sum(partial_sums, (0, 1)).reshape(window, window, 1, channels)


def _group(batch: int, pixels: int) -> int:
    """Returns how many images of `pixels` each are summed together: a power of two that divides `batch`."""
    wanted = max(1, PIXELS // pixels)
    return math.gcd(batch, 1 << (wanted.bit_length() - 1))


@functools.partial(custom_partitioning, static_argnums=(2, 3, 4, 5, 6))
def _partial_sums(
    x: Array, output_gradient: Array, window: int, stride: int, padding: Padding, dtype: jnp.dtype, interpreted: bool
) -> Array:
    """Returns sums [N, P, k*k, C] of images in groups, [N, G, H, W, C], each over one of P parts of its pixels."""
    groups, images, height, width, channels = x.shape
    rows, columns = output_gradient.shape[2:4]
    pixels = images * rows * columns
    block = min(CHANNELS, pl.next_power_of_2(channels))
    tile = max(1, 1 << (SUMS // (window * window * block)).bit_length() - 1)
    tiles = pl.cdiv(pixels, tile)
    parts = max(1, pixels // PIXELS)
    of_a_part = pl.cdiv(tiles, parts)

    def kernel(x_ref, gradient_ref, sums_ref) -> None:  # noqa: ANN001
        group, part = pl.program_id(0), pl.program_id(1)
        channel = pl.program_id(2) * block + jnp.arange(block, dtype=jnp.int32)
        known = channel < channels

        def add_tile(index: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            pixel = (part * of_a_part + index) * tile + jnp.arange(tile, dtype=jnp.int32)
            inside = pixel < pixels
            row_of_all, column = _divided(pixel, columns)
            image, row = _divided(row_of_all, rows)
            top, left = row * stride - padding[0][0], column * stride - padding[1][0]
            gradient = _load(gradient_ref, group, pixel, channel, inside, known).astype(dtype)
            added = []
            for tap, total in enumerate(sums):
                above, beside = top + tap // window, left + tap % window
                met = inside & (above >= 0) & (above < height) & (beside >= 0) & (beside < width)
                values = _load(x_ref, group, (image * height + above) * width + beside, channel, met, known)
                added.append(total + values.astype(dtype) * gradient)
            return tuple(added)

        zeros = (jnp.zeros((tile, block), dtype),) * (window * window)
        count = jnp.minimum(jnp.int32(of_a_part), tiles - part * of_a_part)
        sums = lax.fori_loop(jnp.int32(0), count, add_tile, zeros)
        for tap, total in enumerate(sums):
            triton.store(sums_ref.at[group, part, tap, channel], jnp.sum(total, 0), mask=known)

    return pl.pallas_call(
        kernel,
        grid=(groups, parts, pl.cdiv(channels, block)),
        out_shape=jax.ShapeDtypeStruct((groups, parts, window * window, channels), dtype),
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=2),
        interpret=interpreted,
        name="depthwise_weight_gradient",
    )(x.reshape(groups, -1, channels), output_gradient.reshape(groups, -1, channels))


def _divided(numbers: Array, by: int) -> tuple[Array, Array]:
    """Returns whole quotients and remainders of `numbers`, none of which is below 0."""
    quotients = lax.div(numbers, jnp.full_like(numbers, by))
    return quotients, numbers - quotients * by


def _load(values, group: Array, pixel: Array, channel: Array, inside: Array, known: Array) -> Array:  # noqa: ANN001
    """Returns `values[group, pixel, channel]`, [pixels, channels], with zeros where a pixel or channel is not there."""
    # the mask alone keeps off channels that are not there: other numbers for them would hide that channels follow each
    # other, and each would be loaded by itself
    place = values.at[group, jnp.where(inside, pixel, 0)[:, None], channel[None, :]]
    return triton.load(place, mask=inside[:, None] & known[None, :], other=0)


def _partition(*given: Any) -> tuple:
    """Returns what one device computes: the sums of its own groups."""
    *static, mesh, shapes, _ = given
    sharding = NamedSharding(mesh, PartitionSpec(*shapes[0].sharding.spec[:1]))
    return mesh, lambda *operands: _partial_sums.fun(*operands, *static), sharding, (sharding, sharding)


_partial_sums.def_partition(partition=_partition, sharding_rule="n g h w c, n i p q d -> n s t e")
