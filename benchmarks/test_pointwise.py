"""How near do the native kernels' 1x1 convolutions come to a product of matrices? Run by hand, as `test_speed.py` is.

All 1x1 convolutions of MobileNetV2 are timed alone, forward and both gradients, with the cores that the process may
use. The ceiling is a float32 product of large matrices by XLA: what the processor multiplies where it has no
instruction for bfloat16.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import pytest

from cxr_jax.bench.ceilings import fastest, measure_ceilings
from cxr_jax.models.kernels.native.library import why_not
from cxr_jax.models.kernels.native.operations import convolution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Direction

AT_LEAST = 0.6
"""Share of the product that all layers together reach in each direction."""

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repetitions and first stride of MobileNetV2's blocks."""


@pytest.fixture(scope="module")
def product_flops() -> float:
    """Operations a second of a float32 product."""
    if reason := why_not():
        pytest.skip(reason)
    return measure_ceilings().matmul_float32_flops


def test_1x1_convolutions_are_nearly_products(
    product_flops: float, request: pytest.FixtureRequest, direction: Direction
) -> None:
    """Time one direction of every layer, and hold their sum against the product."""
    option = request.config.getoption
    batch = option("--batch-size")
    operations = seconds = 0.0
    print(f"\n{direction.name}; the product: {product_flops / 1e9:.0f} GFLOP/s")
    for (side, inputs, outputs), count in Counter(_layers(option("--image-size"))).items():
        least = _seconds(direction, batch, side, inputs, outputs)
        work = 2 * batch * side**2 * inputs * outputs
        speed = work / least
        layer = f"{side} x {side} pixels, {inputs} to {outputs} channels"
        print(f"{layer}: {speed / 1e9:.0f} GFLOP/s, {speed / product_flops:.2f}")
        operations, seconds = operations + count * work, seconds + count * least
    share = operations / seconds / product_flops
    print(f"all layers: {operations / seconds / 1e9:.0f} GFLOP/s, {share:.2f} of the product, {1e3 * seconds:.0f} ms")
    if not option("--no-bounds"):
        assert share >= AT_LEAST


def _layers(image_size: int) -> Iterator[tuple[int, int, int]]:
    """Yields side, inputs and outputs of every 1x1 convolution of MobileNetV2."""
    side, channels = image_size // 2, 32
    for expansion, outputs, repetitions, first_stride in BLOCKS:
        for repetition in range(repetitions):
            expanded = channels * expansion
            if expansion > 1:
                yield side, channels, expanded
            side //= first_stride if repetition == 0 else 1
            yield side, expanded, outputs
            channels = outputs
    yield side, channels, 1280


def _seconds(direction: Direction, batch: int, side: int, inputs: int, outputs: int) -> float:
    """Returns seconds of the fastest of several runs of one layer."""
    x, kernel, y = (
        jax.random.normal(jax.random.key(number), shape, dtype)
        for number, (shape, dtype) in enumerate(
            [
                ((batch, side, side, inputs), jnp.bfloat16),
                ((1, 1, inputs, outputs), jnp.float32),
                ((batch, side, side, outputs), jnp.bfloat16),
            ]
        )
    )
    program = direction.of(lambda x, kernel: convolution(x, kernel, 1, ((0, 0), (0, 0))))
    return fastest(program, x, kernel, y, queued=1)
