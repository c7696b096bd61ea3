import numpy as np
import pytest

from cxr_jax.evaluation.kernel_distance import kernel_distance, squared_discrepancy


def pair_by_pair(first, second):
    """The estimate as its definition has it, in float64."""

    def kernel(x, y):
        return (np.dot(x, y) / len(x) + 1) ** 3

    def within(rows):
        return np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])

    return within(first) + within(second) - 2 * np.mean([kernel(x, y) for x in first for y in second])


def test_it_is_the_unbiased_estimate_of_the_definition():
    generator = np.random.default_rng(0)
    first, second = generator.normal(0, 1, (7, 5)), generator.normal(0.5, 1, (4, 5))
    assert squared_discrepancy(first, second) == pytest.approx(pair_by_pair(first, second), rel=1e-12)
    # float32 features are not summed in float32
    single = squared_discrepancy(first.astype(np.float32), second.astype(np.float32))
    assert single == pytest.approx(pair_by_pair(first.astype(np.float32).astype(float), second), rel=1e-5)


def test_halves_of_one_set_are_at_no_distance_on_average():
    """The mean over many draws is 0 within its error, so that small sets are not told apart for being small."""
    generator = np.random.default_rng(1)
    values = [squared_discrepancy(*generator.normal(0, 1, (2, 6, 8))) for _ in range(2000)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert np.min(values) < 0


def test_sets_that_differ_are_told_apart_beyond_the_error():
    generator = np.random.default_rng(2)
    real, other = generator.normal(0, 1, (500, 16)), generator.normal(0.3, 1, (700, 16))
    same = kernel_distance(real[:250], real[250:])
    apart = kernel_distance(real, other)
    assert (same.blocks, apart.blocks) == (10, 10)
    assert apart.images == (500, 700)
    assert abs(same.value) < 5 * same.standard_error
    assert apart.value > 5 * apart.standard_error
    assert kernel_distance(real, other) == apart


def test_the_standard_error_is_that_of_the_mean_of_blocks():
    generator = np.random.default_rng(3)
    found = [kernel_distance(*generator.normal(0, 1, (2, 400, 4)), seed=seed) for seed in range(60)]
    spread = np.std([each.value for each in found])
    assert np.mean([each.standard_error for each in found]) == pytest.approx(spread, rel=0.35)


def test_too_few_images_have_none():
    assert kernel_distance(np.zeros((7, 4)), np.zeros((19, 4))) is None
    for images, blocks in ((8, 2), (40, 10), (999, 10), (1200, 12)):
        assert kernel_distance(np.zeros((images, 4)), np.zeros((1300, 4))).blocks == blocks
