import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2, f, norm, ttest_ind, ttest_rel

from cxr_jax.evaluation import paired
from cxr_jax.evaluation.intervals import percentile_interval


def drawn(seeds, images=60, *, skill=1.0, seed=0):
    """Labels [N] and scores [seeds, N] that share what the images are like."""
    random = np.random.default_rng(seed)
    label = np.arange(images) % 2
    shared = random.normal(size=images)
    return label, shared + skill * label + 0.7 * random.normal(size=(seeds, images))


def placements_by_loops(label, score):
    """For every image the share of the other class that it is ranked on the right side of, in the order of images."""
    out = np.empty(len(label))
    for i, one in enumerate(score):
        others = score[label != label[i]]
        wins = (one > others) if label[i] else (one < others)
        out[i] = np.mean(wins + 0.5 * (one == others))
    return out


def test_delongs_paired_test_gives_the_published_answer(ovarian):
    """Albumin and total protein against the K-G score: 0.0108 (p 0.9102) and -0.0780 (p 0.4561), SAS/STAT guide."""
    label, (albumin, score, protein) = ovarian
    first = paired.compare_auc(label, albumin[None], score[None])
    assert first.value == pytest.approx(0.0108, abs=5e-5)
    assert first.p_value == pytest.approx(0.9102, abs=5e-5)
    assert first.interval.method == "DeLong"
    second = paired.compare_auc(label, protein[None], score[None])
    assert second.value == pytest.approx(-0.0780, abs=5e-5)
    assert second.p_value == pytest.approx(0.4561, abs=5e-5)


def test_the_variance_over_seeds_is_that_of_the_mean_placements():
    """The mean of AUCs is the mean of its placements, whose variance needs no covariance matrix."""
    label, scores = drawn(5)
    scores = np.round(scores, 1)
    of_image = np.mean([placements_by_loops(label, s) for s in scores[:3]], axis=0)
    of_image -= np.mean([placements_by_loops(label, s) for s in scores[3:]], axis=0)
    ill, well = of_image[label == 1], of_image[label == 0]
    error = np.sqrt(np.var(ill, ddof=1) / len(ill) + np.var(well, ddof=1) / len(well))
    answer = paired.compare_auc(label, scores[:3], scores[3:], level=0.9)
    assert answer.value == pytest.approx(ill.mean())
    assert answer.p_value == pytest.approx(2 * norm.sf(abs(ill.mean()) / error))
    assert answer.interval.high - answer.interval.low == pytest.approx(2 * 1.6448536 * error)


def test_repeating_every_image_inside_its_group_changes_nothing():
    label, scores = drawn(4)
    twice = np.repeat(np.arange(60), 2)
    once = paired.compare_auc(label, scores[:2], scores[2:], np.arange(60))
    again = paired.compare_auc(label[twice], scores[:2, twice], scores[2:, twice], twice)
    assert again.interval.method == "Obuchowski"
    assert again.value == pytest.approx(once.value)
    assert again.p_value == pytest.approx(once.p_value)
    naive = paired.compare_auc(label[twice], scores[:2, twice], scores[2:, twice])
    assert naive.p_value < again.p_value


def test_auc_has_no_test_without_variance_or_without_a_class():
    label, scores = drawn(1)
    same = paired.compare_auc(label, scores, scores)
    assert (same.value, same.interval, same.p_value) == (0, None, None)
    assert paired.compare_auc(np.ones(60, int), scores, scores) is None


def test_mcnemar_of_single_runs_is_the_binomial_test_of_the_images_on_which_they_differ():
    first = np.array([[1] * 9 + [0] * 2 + [1] * 20], bool)
    second = np.array([[0] * 9 + [1] * 2 + [1] * 20], bool)
    answer = paired.mcnemar(first, second)
    assert (answer.only_first_right, answer.only_second_right, answer.method) == (9, 2, "McNemar, exact")
    assert answer.p_value == pytest.approx(2 * sum(binom.pmf(k, 11, 0.5) for k in range(3)))
    assert paired.mcnemar(first, first).p_value == 1


def test_clustered_mcnemar_is_mcnemars_statistic_when_every_group_is_one_image():
    random = np.random.default_rng(1)
    first, second = random.random((1, 80)) < 0.8, random.random((1, 80)) < 0.6
    b, c = np.sum(first & ~second), np.sum(~first & second)
    answer = paired.mcnemar(first, second, np.arange(80))
    assert answer.method == "McNemar, clustered"
    assert answer.p_value == pytest.approx(chi2.sf(79 / 80 * (b - c) ** 2 / (b + c), 1))
    # three equal seeds are as good as one
    repeated = paired.mcnemar(np.repeat(first, 3, 0), np.repeat(second, 2, 0))
    assert repeated.p_value == pytest.approx(answer.p_value)
    assert (repeated.only_first_right, repeated.only_second_right) == (pytest.approx(b), pytest.approx(c))
    twice = np.repeat(np.arange(80), 2)
    assert paired.mcnemar(first[:, twice], second[:, twice], twice).p_value == pytest.approx(answer.p_value)
    assert paired.mcnemar(first, first, np.arange(80)).p_value == 1


def test_clustered_mcnemar_agrees_with_exchanging_the_recipes_group_by_group():
    random = np.random.default_rng(2)
    clusters = np.repeat(np.arange(60), 3)
    hard = np.repeat(random.normal(size=60), 3)
    first = hard + random.normal(size=(3, 180)) > -0.9
    second = hard + random.normal(size=(2, 180)) > -0.7
    by_group = np.add.reduceat(first.mean(0) - second.mean(0), np.arange(0, 180, 3))
    signs = random.choice([-1, 1], size=(20_000, 60))
    p_value = np.mean(np.abs(signs @ by_group) >= abs(by_group.sum()) - 1e-9)
    answer = paired.mcnemar(first, second, clusters)
    assert answer.p_value == pytest.approx(p_value, abs=0.015)
    assert 0.02 < answer.p_value < 0.5
    assert (answer.only_first_right - answer.only_second_right) / 180 == pytest.approx(first.mean() - second.mean())
    one_by_one = [[np.sum(a & ~b) for b in second] for a in first]
    assert answer.only_first_right == pytest.approx(np.mean(one_by_one))


def test_a_bootstrap_p_value_is_that_of_its_distribution():
    draws = np.random.default_rng(3).normal(1.7, 1, size=200_000)
    assert paired.bootstrap_p_value(draws) == pytest.approx(2 * norm.sf(1.7), rel=0.02)
    assert paired.bootstrap_p_value(-draws) == paired.bootstrap_p_value(draws)


@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_a_bootstrap_p_value_below_5_percent_means_that_the_interval_leaves_zero_out(seed, centre):
    draws = np.random.default_rng(seed).normal(centre, 1, size=1999)
    p_value = paired.bootstrap_p_value(draws)
    interval = percentile_interval(draws, float(np.median(draws)))
    if p_value < 0.049:
        assert interval.low > 0 or interval.high < 0
    if p_value > 0.052:
        assert interval.low <= 0 <= interval.high


def test_a_bootstrap_p_value_is_never_zero_and_absent_where_there_is_no_interval():
    assert paired.bootstrap_p_value(np.linspace(1, 2, 999)) == pytest.approx(2 / 1000)
    assert paired.bootstrap_p_value(np.zeros(100)) is None
    assert paired.bootstrap_p_value(np.r_[np.full(20, np.nan), np.arange(80)]) is None
    assert paired.bootstrap_p_value(np.full(5, np.nan)) is None


def test_over_seeds_without_uncertain_patients_is_welchs_t_test():
    first, second = np.array([0.81, 0.84, 0.90, 0.85]), np.array([0.78, 0.80, 0.79])
    answer = paired.difference_over_seeds(first, second, np.zeros((7, 7)), level=0.9)
    welch = ttest_ind(first, second, equal_var=False)
    assert answer.p_value == pytest.approx(welch.pvalue)
    assert answer.degrees_of_freedom == pytest.approx(welch.df)
    low, high = welch.confidence_interval(0.9)
    assert (answer.interval.low, answer.interval.high) == (pytest.approx(low), pytest.approx(high))


def test_over_seeds_is_hilliss_f_test_of_readers_nested_in_tests():
    """F = MS(T) / (MS(R(T)) + r max(Cov2 - Cov3, 0)), two tests with r readers each and equal variances."""
    r, within, between = 3, 4e-4, 1e-4
    first, second = 0.9 + np.array([-0.03, 0, 0.03]), 0.8 + np.array([0.03, -0.03, 0])
    covariance = np.full((6, 6), between)
    covariance[:3, :3] = covariance[3:, 3:] = within
    np.fill_diagonal(covariance, 9e-4)
    readers = 0.03**2
    error = readers + r * (within - between)
    p_value = f.sf(r * 0.1**2 / 2 / error, 1, error**2 / (readers**2 / (2 * (r - 1))))
    answer = paired.difference_over_seeds(first, second, covariance)
    assert answer.p_value == pytest.approx(p_value)
    assert answer.interval.method == "Obuchowski-Rockette"
    # seeds of two recipes cannot resemble each other more than those of one, whatever was estimated
    covariance[:3, 3:] = covariance[3:, :3] = 8e-4
    alone = paired.difference_over_seeds(first, second, np.zeros((6, 6)))
    assert paired.difference_over_seeds(first, second, covariance).p_value == pytest.approx(alone.p_value)


def test_over_seeds_needs_two_seeds_and_some_variance():
    one, two = np.array([0.8]), np.array([0.7, 0.75])
    assert paired.difference_over_seeds(one, two, np.eye(3)) is None
    assert paired.difference_over_seeds(two, one, np.eye(3)) is None
    equal = np.array([0.7, 0.7])
    assert paired.difference_over_seeds(equal, equal, np.zeros((4, 4))) is None
    covariance = np.zeros((4, 4))
    covariance[:2, :2] = covariance[2:, 2:] = 0.02**2 / 2
    patients = paired.difference_over_seeds(equal + 0.04, equal, covariance)
    assert patients.degrees_of_freedom is None
    assert patients.p_value == pytest.approx(2 * norm.sf(2))


def test_equal_recipes_are_told_apart_as_often_as_promised_over_seeds_and_too_often_without():
    random = np.random.default_rng(4)
    label = np.arange(100) % 2
    over_seeds, alone = [], []
    for _ in range(400):
        patients = random.normal(size=100) + 1.2 * label
        # a seed decides how well its network sees, as a patient decides how well it is seen
        blur = random.uniform(0.2, 2.5, size=(6, 1))
        scores = patients + blur * random.normal(size=(6, 100))
        auc, covariance = paired.auc_covariance(label, scores, None)
        over_seeds.append(paired.difference_over_seeds(auc[:3], auc[3:], covariance).p_value < 0.05)
        alone.append(paired.compare_auc(label, scores[:3], scores[3:]).p_value < 0.05)
    assert 0.01 <= np.mean(over_seeds) <= 0.08
    assert np.mean(alone) > np.mean(over_seeds) + 0.04


def test_holm_adjusts_as_in_the_book():
    np.testing.assert_allclose(paired.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.6, 0.7]) == [1, 1]
    assert paired.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_by_hand_rejects(values):
    adjusted = paired.holm(values)
    assert all(a >= v for a, v in zip(adjusted, values, strict=True))
    for level in (0.01, 0.05, 0.3):
        left = sorted(range(len(values)), key=lambda i: (values[i], i))
        rejected = set()
        while left and values[left[0]] * len(left) <= level:
            rejected.add(left.pop(0))
        assert {i for i, a in enumerate(adjusted) if a <= level} == rejected


@given(st.integers(2, 8), st.integers(0, 10**6), st.floats(0.5, 0.99))
def test_the_difference_by_seed_is_the_paired_t_test(count, seed, level):
    random = np.random.default_rng(seed)
    first, second = random.normal(0.9, 0.1, count), random.normal(0.8, 0.1, count)
    found = paired.difference_by_seed(first, second, level)
    expected = ttest_rel(first, second)
    interval = expected.confidence_interval(level)
    assert found.value == pytest.approx(np.mean(first) - np.mean(second))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))


def test_a_single_seed_or_equal_differences_have_no_interval():
    assert paired.difference_by_seed([0.5], [0.25]) == paired.Difference(0.25, None, None)
    assert paired.difference_by_seed([0.5, 0.75], [0.25, 0.5]) == paired.Difference(0.25, None, None)
