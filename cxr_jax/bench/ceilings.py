"""What the machine can do at most, so that a step can be held against it (the roofline, Williams et al. 2009)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

REPEATS = 8
"""Runs of which the fastest counts: a ceiling is what the machine reaches when nothing disturbs it."""


@dataclass(frozen=True)
class Sizes:
    """How large the operands are."""

    matrix: int  # side of the square matrices
    copied_bytes: int  # far beyond the last cache
    queued: int = 1  # runs that are started before the last is awaited: an accelerator must not wait for its host


CPU_SIZES = Sizes(matrix=2048, copied_bytes=256 * 2**20)
ACCELERATOR_SIZES = Sizes(matrix=8192, copied_bytes=2**30, queued=8)


@dataclass(frozen=True)
class Ceilings:
    """The best that was measured."""

    matmul_float32_flops: float  # operations a second of a square product, at jax's default precision
    matmul_bfloat16_flops: float  # the same with bfloat16 operands and a float32 result
    copy_bytes: float  # bytes read and written a second by an elementwise pass over a large array


def measure_ceilings(sizes: Sizes | None = None) -> Ceilings:
    """Measures the ceilings of the first device, with the cores that this process may use."""
    if sizes is None:
        sizes = CPU_SIZES if jax.devices()[0].platform == "cpu" else ACCELERATOR_SIZES
    return Ceilings(
        matmul_float32_flops=_matmul_flops(sizes, jnp.float32),
        matmul_bfloat16_flops=_matmul_flops(sizes, jnp.bfloat16),
        copy_bytes=_copy_bytes(sizes),
    )


def fastest(program: Callable[..., Array], *operands: Array, queued: int = 1) -> float:
    """Returns seconds of one of `queued` runs in the fastest of several goes; the first run, which compiles, is
    left out.
    """
    jax.block_until_ready(program(*operands))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(queued):
            result = program(*operands)
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - began) / queued)
    return min(seconds)


def _matmul_flops(sizes: Sizes, dtype: DTypeLike) -> float:
    side = sizes.matrix
    left, right = (jax.random.normal(jax.random.key(seed), (side, side)).astype(dtype) for seed in (0, 1))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    return 2 * side**3 / fastest(product, left, right, queued=sizes.queued)


def _copy_bytes(sizes: Sizes) -> float:
    # An addition, because a bare copy could be left out or done by one thread.
    source = jnp.zeros(sizes.copied_bytes // 4, jnp.float32)
    added = jax.jit(lambda array: array + jnp.float32(1))
    return 2 * source.nbytes / fastest(added, source, queued=sizes.queued)
