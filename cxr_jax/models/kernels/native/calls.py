"""How the handlers of the native kernels are called: shapes of results, and attributes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cxr_jax.models.kernels.depthwise import Padding
from cxr_jax.models.kernels.native.library import target

ACTIVATIONS = {"none": 0, "relu6": 1, "silu": 2, "relu": 3}
"""The activations that the kernels know, by number."""


def call(name: str, shapes: Any, *operands: Array, **attributes: np.int64) -> Any:
    """Returns what the handler `name` makes of `operands`: one array of each of `shapes`, or the only one."""
    return jax.ffi.ffi_call(target(name), shapes)(*operands, **attributes)


def bfloat16_of(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Returns `shape` as that of activations."""
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16)


def float32_of(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Returns `shape` as that of parameters, statistics and sums."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def activation_number(activation: str) -> dict[str, np.int64]:
    """Returns the attribute that says which activation is meant."""
    return {"activation": np.int64(ACTIVATIONS[activation])}


def placing(stride: int, padding: Padding) -> dict[str, np.int64]:
    """Returns the attributes that say where windows lie."""
    (top, _), (left, _) = padding
    return {"stride": np.int64(stride), "top": np.int64(top), "left": np.int64(left)}
