"""Dropout and stochastic depth: what is left out at random while a network is trained."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from cxr_jax.models.layers import Mode


def dropout(x: Array, rate: float, keys: Array) -> Array:
    """Returns `x` [B, ...] with a share `rate` of its values zero and the others enlarged to keep the mean.

    `keys` [B] are typed keys, one for each example, so that its mask does not depend on its place in the batch.
    """
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


@dataclass(frozen=True)
class StochasticDepth:
    """Leaves a block's branch out for whole examples, and enlarges the others to keep the mean (Huang et al. 2016)."""

    rate: float = 0.0  # share of the examples that skip the branch
    layer: int = 0  # tells this block's draws from the others'

    def __call__(self, branch: Array, mode: Mode) -> Array:
        """`branch` [B, H, W, C] with some examples zero; as it is in evaluation, where `mode` has no keys."""
        if self.rate == 0 or mode.keys is None:
            return branch
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate))(mode.keys_of(self.layer))
        return jnp.where(kept.reshape(-1, 1, 1, 1), branch / (1 - self.rate), jnp.zeros((), branch.dtype))


NEVER_SKIPPED = StochasticDepth()
