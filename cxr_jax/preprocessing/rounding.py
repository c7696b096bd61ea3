"""Products that are rounded alike wherever they are computed."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

_NEVER_REACHED = 3e38


def product(one: Float[Array, ...], other: Float[Array, ...]) -> Float[Array, ...]:
    """Returns `one * other`, rounded to float32 before anything is added to it.

    A compiler may fuse a product with the sum that follows and round once instead of twice. Where it does so depends on
    how it cuts a computation into loops, and therefore on the size of the batch. The bound prevents it.
    """
    return jnp.minimum(one * other, _NEVER_REACHED)
