"""What torch's networks call the arrays that ours have, and how they lay them out."""

from __future__ import annotations

import numpy as np
from jax import Array

from cxr_jax.models.state import ArrayDict

OriginalNames = tuple[tuple[str, str], ...]
"""Dotted prefixes of our names, each with the original's; the first that fits counts. An empty one fits every name."""

FULLY_CONNECTED: OriginalNames = (("classifier", "fc"),)

TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
"""What timm calls the leaf that we call by the key."""


def original_name(name: str, names: OriginalNames = ()) -> str:
    """Returns the original's name of the array that we call `name`."""
    module, leaf = name.rsplit(".", 1)
    for ours, theirs in names:
        if not ours:
            module = theirs + module
            break
        if module == ours or module.startswith(f"{ours}."):
            module = theirs + module.removeprefix(ours)
            break
    return f"{module}.{TORCH_LEAVES[leaf]}"


def expected_tensors(arrays: ArrayDict, names: OriginalNames = ()) -> dict[str, tuple[int, ...]]:
    """Returns the original's name and torch's shape of every array in `arrays`."""
    return {original_name(name, names): torch_shape(name, array) for name, array in arrays.items()}


def as_ours(name: str, value: np.ndarray, ndim: int) -> np.ndarray:
    """Returns a torch array in our layout: kernels OIHW become HWIO, linear weights (out, in) become (in, out)."""
    if name.endswith(".weight") and value.ndim == ndim and ndim in (2, 4):
        return value.transpose((2, 3, 1, 0) if ndim == 4 else (1, 0))
    return value


def as_torch(name: str, value: np.ndarray) -> np.ndarray:
    """Returns our array called `name` in torch's layout; the inverse of `as_ours`."""
    if name.endswith(".kernel"):
        return value.transpose((3, 2, 0, 1) if value.ndim == 4 else (1, 0))
    return value


def torch_shape(name: str, array: Array) -> tuple[int, ...]:
    """Returns the shape that `as_torch` gives our array called `name`."""
    shape = tuple(array.shape)
    if name.endswith(".kernel"):
        return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
    return shape
