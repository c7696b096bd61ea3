"""Mixtures of two images: whose they are, how much of each, and that the rest of a batch does not matter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cxr_jax.preprocessing.mixup import mix_pairs, swap_pairs


def keys_of(count: int) -> jax.Array:
    return jax.vmap(lambda index: jax.random.fold_in(jax.random.key(0), index))(jnp.arange(count))


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 6, 6)), jnp.float32)


def test_neighbours_are_swapped():
    np.testing.assert_array_equal(swap_pairs(jnp.arange(6)), [1, 0, 3, 2, 5, 4])
    np.testing.assert_array_equal(swap_pairs(swap_pairs(jnp.arange(8.0))), np.arange(8.0))


def test_an_image_is_its_share_and_its_neighbours_rest(images):
    mixed, share = jax.jit(mix_pairs, static_argnums=2)(images, keys_of(8), 0.4)
    assert len(np.unique(share)) == 8
    for row, other in enumerate([1, 0, 3, 2, 5, 4, 7, 6]):
        expected = share[row] * images[row] + (1 - share[row]) * images[other]
        np.testing.assert_allclose(mixed[row], expected, rtol=1e-5)


@pytest.mark.parametrize("strength", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(strength):
    count = 4000
    _, share = mix_pairs(jnp.zeros((count, 1, 1)), keys_of(count), strength)
    # shares of a small strength crowd at 0 and 1, where float32 rounds them to the ends
    assert (
        stats.kstest(np.clip(np.asarray(share, np.float64), 1e-9, 1 - 1e-7), stats.beta(strength, strength).cdf).pvalue
        > 1e-3
    )


def test_a_pair_does_not_depend_on_the_rest_of_the_batch(images):
    whole, shares = mix_pairs(images, keys_of(8), 0.4)
    part, part_shares = mix_pairs(images[:2], keys_of(8)[:2], 0.4)
    np.testing.assert_array_equal(whole[:2], part)
    np.testing.assert_array_equal(shares[:2], part_shares)
