"""What the tests of the kernel program share: operands, calls and comparisons with float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from .kernel_program import KernelProgram, bfloat16

ROUNDING = 2.0**-8
"""Relative error of one rounding to bfloat16."""

sizes = st.integers(1, 9)
few = settings(max_examples=12)


def values(shape: Sequence[int], seed: int, scale: float = 1.0) -> np.ndarray:
    """Returns normally distributed values, rounded to bfloat16."""
    return bfloat16(np.random.default_rng(seed).standard_normal(shape) * scale)


def parameters(shape: int | Sequence[int], seed: int) -> np.ndarray:
    """Returns such values in float32, as kernels are given parameters."""
    return values(shape, seed).astype(np.float32)


def called(
    program: KernelProgram, name: str, operands: Sequence[np.ndarray], results: Sequence[np.ndarray], *numbers: int
) -> list[np.ndarray]:
    """Returns `results` in float64 after a call, which may not be refused."""
    assert program.call(name, operands, results, *numbers) == ""
    return [np.asarray(result, np.float64) for result in results]


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal up to `tolerance` times the largest value: what is near zero by cancellation keeps its rounding."""
    assert found.shape == expected.shape
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(largest, 1e-20))
