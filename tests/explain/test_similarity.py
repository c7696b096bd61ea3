import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from cxr_jax.explain.similarity import rank_correlation, structural_similarity

MAPS = hnp.arrays(np.float32, (3, 4, 5), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))


@given(MAPS, MAPS)
def test_rank_correlation_is_spearmans_with_ties(first, second):
    found = rank_correlation(first, second)
    for one, other, value in zip(first, second, found, strict=True):
        if np.ptp(one) == 0 or np.ptp(other) == 0:
            assert value == 0
        else:
            assert value == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic, abs=1e-9)


def test_only_the_order_of_the_heat_counts():
    heat = np.random.default_rng(0).random((2, 7, 7))
    np.testing.assert_allclose(rank_correlation(heat, heat**5), 1)
    np.testing.assert_allclose(rank_correlation(heat, 1 - heat), -1)


def test_structural_similarity_is_that_of_wang_with_scipys_window():
    first, second = np.random.default_rng(1).random((2, 40, 40))

    def mean(values):
        return gaussian_filter(values, 2.0, mode="nearest", truncate=4)

    one, other = mean(first), mean(second)
    covariance = mean(first * second) - one * other
    variances = mean(first**2) - one**2 + mean(second**2) - other**2
    expected = (2 * one * other + 1e-4) * (2 * covariance + 9e-4)
    expected = expected / ((one**2 + other**2 + 1e-4) * (variances + 9e-4))
    np.testing.assert_allclose(structural_similarity(first[None], second[None]), [expected.mean()], atol=1e-6)


def test_equal_maps_are_wholly_similar_and_a_blank_one_is_not():
    heat = np.random.default_rng(2).random((1, 20, 20))
    np.testing.assert_allclose(structural_similarity(heat, heat), 1)
    assert structural_similarity(heat, np.zeros_like(heat))[0] < 0.1
