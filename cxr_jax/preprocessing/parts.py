"""A batch in parts that are computed one after the other.

Part i holds the rows i, i + count, ... If each device holds a contiguous share of the batch whose length is a multiple
of `count`, it also holds its share of every part.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def in_parts(rows: Array, count: int) -> Array:
    """Returns `rows` [B, ...] as parts [count, B / count, ...]; B must be a multiple of `count`."""
    return jnp.moveaxis(rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]), 1, 0)


def from_parts(parts: Array) -> Array:
    """Returns the rows [B, ...] of parts [count, B / count, ...], in the order that they had before `in_parts`."""
    rows = jnp.moveaxis(parts, 0, 1)
    return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])


def fewest_parts(rows: int) -> int:
    """Returns the smallest number of equal parts, above one, that so many rows can be cut into; 1 for a single row."""
    return next((count for count in range(2, rows + 1) if rows % count == 0), 1)
