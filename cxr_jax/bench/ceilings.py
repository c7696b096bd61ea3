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
class Ceilings:
    """The best that was measured."""

    matmul_float32_flops: float  # operations a second of a square product, at jax's default precision
    matmul_bfloat16_flops: float  # the same with bfloat16 operands and a float32 result
    copy_bytes: float  # bytes read and written a second by an elementwise pass over a large array


def measure_ceilings() -> Ceilings:
    """Measures the ceilings of the first device, with the cores that this process may use."""
    if jax.devices()[0].platform == "cpu":
        return ceilings_of(matrix=2048, copied_bytes=256 * 2**20, queued=1)
    return ceilings_of(matrix=8192, copied_bytes=2**30, queued=8)


def ceilings_of(*, matrix: int, copied_bytes: int, queued: int) -> Ceilings:
    """Measures with square matrices of side `matrix` and an array of `copied_bytes`, far beyond the last cache.

    `queued` runs are started before the last is awaited: an accelerator must not wait for its host.
    """

    def matmul_flops(dtype: DTypeLike) -> float:
        left, right = (jax.random.normal(jax.random.key(seed), (matrix, matrix)).astype(dtype) for seed in (0, 1))
        product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
        return 2 * matrix**3 / fastest(product, left, right, queued=queued)

    source = jnp.zeros(copied_bytes // 4, jnp.float32)
    # an addition, because a bare copy could be left out or done by one thread
    added = jax.jit(lambda array: array + jnp.float32(1))
    return Ceilings(
        matmul_float32_flops=matmul_flops(jnp.float32),
        matmul_bfloat16_flops=matmul_flops(jnp.bfloat16),
        copy_bytes=2 * source.nbytes / fastest(added, source, queued=queued),
    )


def fastest(program: Callable[..., Array], *operands: Array, queued: int) -> float:
    """Returns seconds of one of `queued` runs in the fastest of several goes after the first, which compiles."""
    jax.block_until_ready(program(*operands))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(queued):
            result = program(*operands)
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - began) / queued)
    return min(seconds)
