"""Are the depthwise convolutions fast, forward and both gradients? Run by hand, as `test_speed.py` is.

Whether a grouped convolution's gradients are fast on a GPU has been doubted for years (jax#13800). A whole step
shows how ours stand against stock ones (`cxr-jax bench --plain`); here every lowering is timed alone at three layers
of MobileNetV2 at 224 pixels. The floor is the time of reading both arrays and writing the result once, at the
measured speed of a copy; what fits in a cache can be faster.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark")

import jax
import jax.numpy as jnp

from cxr_jax.bench.ceilings import measure_ceilings
from cxr_jax.models.kernels.depthwise import grouped_depthwise, shifted_depthwise

if TYPE_CHECKING:
    from conftest import Direction
    from pytest_benchmark.fixture import BenchmarkFixture

LAYERS = ((112, 32, 1), (56, 144, 2), (14, 384, 1))
"""Side, channels and stride of convolutions with windows of 3 x 3."""

QUEUED = 8
"""Runs that are started before the last is awaited: a launch takes longer than the smallest layers."""


@pytest.fixture(scope="module")
def copy_bytes() -> float:
    """Bytes a second that a copy reads and writes."""
    return measure_ceilings().copy_bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: "x".join(map(str, layer)))
@pytest.mark.parametrize("lowering", [grouped_depthwise, shifted_depthwise], ids=["grouped", "shifted"])
def test_convolution(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    copy_bytes: float,
    dtype: str,
    layer: tuple[int, int, int],
    lowering: object,
    direction: Direction,
) -> None:
    """Time one direction of one lowering, and keep it as a multiple of its floor."""
    side, channels, stride = layer
    batch = request.config.getoption("--batch-size")
    convolve = functools.partial(lowering, stride=stride, padding=((1, 1), (1, 1)))
    x = jax.random.normal(jax.random.key(0), (batch, side, side, channels), jnp.dtype(dtype))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, channels), jnp.dtype(dtype))
    y = convolve(x, kernel)
    program = direction.of(convolve)

    def run() -> None:
        jax.block_until_ready([program(x, kernel, y) for _ in range(QUEUED)])

    benchmark.pedantic(run, rounds=8, warmup_rounds=2)
    floor = (x.nbytes + y.nbytes) / copy_bytes
    times = benchmark.stats.stats.min / QUEUED / floor
    benchmark.extra_info |= {"floor_seconds": floor, "times_the_floor": times}
    print(f"\n{direction.name} takes {times:.1f} times its floor")
