"""Mixtures of two training images and of their labels (Zhang et al. 2018), inside the compiled step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cxr_jax.preprocessing.rounding import product

_MIXUP = 2**20
"""Folded into an image's key, beside the small numbers that its other changes fold in."""


def swap_pairs(rows: Any) -> Any:
    """Returns the rows of `rows` [B, ...], B even, each in the place of its neighbour: 1, 0, 3, 2, ...

    The order of a batch is drawn anew in every epoch, so the pairs differ from epoch to epoch. A device that holds an
    even number of rows holds both rows of every pair.
    """
    return rows.reshape(rows.shape[0] // 2, 2, *rows.shape[1:])[:, ::-1].reshape(rows.shape)


def mix_pairs(
    images: Float[Array, "B S S"], keys: Key[Array, " B"], strength: float
) -> tuple[Float[Array, "B S S"], Float[Array, " B"]]:
    """Returns each of `images` [B, S, S] mixed with its neighbour, and the share [B] that it has in the mixture itself.

    The share is drawn from Beta(strength, strength) by the image's own key. In the loss, the image's own label has this
    share, and the neighbour's label has the rest.
    """
    own = jax.vmap(lambda key: jax.random.fold_in(key, _MIXUP))(keys)
    share = jax.vmap(lambda key: jax.random.beta(key, strength, strength, dtype=jnp.float32))(own)
    weight = share[:, None, None]
    return product(weight, images) + product(1 - weight, swap_pairs(images)), share
