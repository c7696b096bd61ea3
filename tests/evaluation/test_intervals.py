import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cxr_jax.evaluation import intervals
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.metrics import METRICS, roc_auc


def test_delong_gives_the_published_areas_errors_and_contrast(ovarian):
    label, scores = ovarian
    auc, covariance = intervals.delong_covariance(label, scores)
    np.testing.assert_allclose(auc, [0.7366, 0.7258, 0.6478], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.0927, 0.1028, 0.1000], atol=5e-5)
    contrast = np.array([[1, -1, 0], [0, -1, 1]])
    difference, spread = contrast @ auc, contrast @ covariance @ contrast.T
    np.testing.assert_allclose(difference, [0.0108, -0.0780], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(spread)), [0.0953, 0.1046], atol=5e-5)
    assert difference @ np.linalg.solve(spread, difference) == pytest.approx(2.5340, abs=5e-5)


def test_an_auc_has_delongs_interval_on_the_scale_of_the_logit(ovarian):
    label, scores = ovarian
    interval = intervals.auc_interval(label, scores[0])
    # of the published area and error: logit(0.7366) -+ 1.96 * 0.0927 / (0.7366 * 0.2634)
    ends = 1.0284 + np.array([-1, 1]) * 1.959964 * 0.0927 / (0.7366 * 0.2634)
    low, high = 1 / (1 + np.exp(-ends))
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert interval.method == "DeLong, logit"


def test_the_interval_of_a_high_auc_is_longer_downwards_and_ends_below_one():
    label = np.repeat([0, 1], 40)
    score = np.r_[np.arange(40), np.arange(38, 78)]
    interval = intervals.auc_interval(label, score)
    auc = float(roc_auc(Cases.unweighted(label, score))[0])
    assert 0.99 < auc < interval.high < 1
    assert auc - interval.low > 2 * (interval.high - auc)


def definition_of_obuchowski(label, score, clusters):
    """AUC and variance by the sums of Obuchowski 1997, term by term and cluster by cluster."""
    x, y = score[label == 1], score[label == 0]
    xc, yc = clusters[label == 1], clusters[label == 0]
    psi = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
    auc = psi.mean()
    s10 = s01 = s11 = 0.0
    names = np.unique(clusters)
    for name in names:
        of_x = psi[xc == name].mean(axis=1).sum() - (xc == name).sum() * auc
        of_y = psi[:, yc == name].mean(axis=0).sum() - (yc == name).sum() * auc
        s10, s01, s11 = s10 + of_x**2, s01 + of_y**2, s11 + of_x * of_y
    i10, i01, i = len(set(xc)), len(set(yc)), len(names)
    s10 *= i10 / ((i10 - 1) * len(x))
    s01 *= i01 / ((i01 - 1) * len(y))
    s11 *= i / (i - 1)
    return auc, s10 / len(x) + s01 / len(y) + 2 * s11 / (len(x) * len(y))


clustered = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8]) | st.floats(0, 1), st.integers(0, 7)),
    min_size=4,
    max_size=40,
)


@given(images=clustered)
def test_obuchowski_is_its_definition_and_its_auc_the_metric(images):
    label, score, clusters = (np.array(column) for column in zip(*images, strict=True))
    assume(min(len(set(clusters[label == 0])), len(set(clusters[label == 1]))) >= 2)
    auc, covariance = intervals.obuchowski_covariance(label, score, clusters)
    expected_auc, expected_variance = definition_of_obuchowski(label, score, clusters)
    assert auc[0] == pytest.approx(expected_auc)
    assert auc[0] == pytest.approx(roc_auc(Cases.unweighted(label, score))[0])
    assert covariance[0, 0] == pytest.approx(expected_variance, abs=1e-12)


@given(images=clustered)
def test_singleton_clusters_give_delong(images):
    label, score, _ = (np.array(column) for column in zip(*images, strict=True))
    assume(2 <= label.sum() <= len(label) - 2)
    p, q = intervals.placements(label, score).positive[0], intervals.placements(label, score).negative[0]
    _, covariance = intervals.delong_covariance(label, score)
    expected = np.var(p, ddof=1) / len(p) + np.var(q, ddof=1) / len(q)
    assert covariance[0, 0] == pytest.approx(expected, abs=1e-12)


def test_repeating_every_image_in_its_group_changes_nothing_for_obuchowski_but_misleads_delong(ovarian):
    label, scores = ovarian
    once = intervals.delong_covariance(label, scores[0])[1][0, 0]
    again = np.tile(label, 3), np.tile(scores[0], 3)
    clusters = np.tile(np.arange(len(label)), 3)
    assert intervals.obuchowski_covariance(*again, clusters)[1][0, 0] == pytest.approx(once)
    assert intervals.delong_covariance(*again)[1][0, 0] < once / 2.9


@pytest.mark.parametrize(
    ("label", "score"),
    [([1, 1, 1], [0.1, 0.2, 0.3]), ([0, 1, 1], [0.1, 0.2, 0.3]), ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])],
)
def test_an_auc_without_spread_or_without_both_classes_has_no_interval(label, score):
    label, score = np.array(label), np.array(score)
    assert intervals.auc_interval(label, score) is None
    assert intervals.auc_interval(label, score, np.arange(len(label))) is None


@given(st.integers(1, 400), st.data())
def test_wilson_agrees_with_scipy(trials, data):
    successes = data.draw(st.integers(0, trials))
    ours = intervals.wilson_interval(successes, trials, 0.9)
    theirs = binomtest(successes, trials).proportion_ci(0.9, method="wilson")
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-12), pytest.approx(theirs.high, abs=1e-12))


def test_wilson_without_trials_is_none():
    assert intervals.wilson_interval(0, 0) is None


def test_wilson_of_groups_is_wilson_of_images_where_every_image_is_a_group_or_groups_tell_nothing():
    random = np.random.default_rng(0)
    right = random.random(200) < 0.8
    one = intervals.wilson_interval_of_groups(right, np.arange(200))
    other = intervals.wilson_interval(right.sum(), 200)
    assert (one.low, one.high) == (pytest.approx(other.low, rel=1e-3), pytest.approx(other.high, rel=1e-3))
    assert one.method == "Wilson by groups"


def test_wilson_of_groups_counts_copies_once():
    right = np.random.default_rng(1).random(80) < 0.9
    once = intervals.wilson_interval_of_groups(right, np.arange(80))
    copied = intervals.wilson_interval_of_groups(np.tile(right, 5), np.tile(np.arange(80), 5))
    assert (copied.low, copied.high) == (pytest.approx(once.low, rel=1e-3), pytest.approx(once.high, rel=1e-3))


def test_the_design_effect_is_the_variance_over_groups_by_the_binomial_one():
    """The effective number is checked against a bootstrap of groups, which has no formula."""
    random = np.random.default_rng(2)
    clusters = np.repeat(np.arange(150), random.integers(1, 6, 150))
    right = (random.random(150)[clusters] < 0.8) ^ (random.random(len(clusters)) < 0.1)
    interval = intervals.wilson_interval_of_groups(right, clusters)
    weights = intervals.bootstrap_weights(clusters, 4000, random)
    deviation = np.std((weights @ right) / weights.sum(axis=1))
    assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("share", [0, 1])
def test_a_share_at_the_edge_counts_every_group_by_its_size(share):
    clusters = np.repeat([0, 1, 2], [4, 1, 1])
    interval = intervals.wilson_interval_of_groups(np.full(6, share), clusters)
    # (4 + 1 + 1)^2 / (16 + 1 + 1) = 2 images
    expected = intervals.wilson_interval(2 * share, 2)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_wilson_of_weighted_images_is_that_of_the_weighted_share():
    random = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60), 3)
    right = random.random(180) < 0.7
    # two images of a group without weight: what is left is one image a group
    weights = np.tile([1.0, 0, 0], 60)
    weighted = intervals.wilson_interval_of_groups(right, clusters, weights)
    alone = intervals.wilson_interval_of_groups(right[::3], clusters[::3])
    assert (weighted.low, weighted.high) == (pytest.approx(alone.low), pytest.approx(alone.high))


def test_wilson_of_no_image_and_of_one_group():
    assert intervals.wilson_interval_of_groups(np.zeros(0), np.zeros(0, int)) is None
    one = intervals.wilson_interval_of_groups(np.array([1, 0, 1]), np.zeros(3, int))
    assert one.low < 0.2 and one.high > 0.9


def sample(random, groups, size, correlation):
    """Clustered binormal scores: groups of one class and `size` images, correlated within; the AUC is 0.8144."""
    label = np.repeat(random.permutation(np.arange(groups) % 2), size)
    clusters = np.repeat(np.arange(groups), size)
    shared, own = random.normal(size=groups)[clusters], random.normal(size=len(label))
    score = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own + 1.265 * label
    return label, score, clusters


TRUE_AUC = 0.8144


def covers(interval):
    return interval.low <= TRUE_AUC <= interval.high


def test_intervals_cover_the_truth_as_often_as_they_promise():
    random = np.random.default_rng(0)
    trials = 2000
    independent = sum(covers(intervals.auc_interval(*sample(random, 120, 1, 0.0)[:2])) for _ in range(trials))
    assert 0.93 <= independent / trials <= 0.97
    trials = 600
    naive, clustered_ = 0, 0
    for _ in range(trials):
        label, score, clusters = sample(random, 120, 4, 0.8)
        naive += covers(intervals.auc_interval(label, score))
        clustered_ += covers(intervals.auc_interval(label, score, clusters))
    assert 0.92 <= clustered_ / trials <= 0.97
    assert naive / trials < 0.80


def test_the_group_bootstrap_covers_the_truth_where_images_of_a_group_resemble_each_other():
    random = np.random.default_rng(1)
    hits, trials = 0, 250
    for seed in range(trials):
        label, score, clusters = sample(random, 100, 3, 0.8)
        cases = Cases.unweighted(label, score)
        values = intervals.bootstrap_values(cases, clusters, {"roc_auc": roc_auc}, resamples=300, seed=seed)
        hits += covers(intervals.percentile_interval(values["roc_auc"], float(roc_auc(cases)[0])))
    assert 0.90 <= hits / trials <= 0.98


def test_bootstrap_draws_whole_groups_and_as_many_as_there_are():
    clusters = np.array([5, 5, 2, 9, 9, 9, 7])
    weights = intervals.bootstrap_weights(clusters, 500, np.random.default_rng(0))
    assert weights.shape == (500, 7)
    for name in np.unique(clusters):
        members = weights[:, clusters == name]
        assert (members == members[:, :1]).all()
    firsts = [0, 2, 3, 6]
    assert (weights[:, firsts].sum(axis=1) == 4).all()
    # Each group is drawn once on average, with a binomial's variance.
    np.testing.assert_allclose(weights[:, firsts].mean(axis=0), 1, atol=0.15)
    np.testing.assert_allclose(weights[:, firsts].var(axis=0), 0.75, atol=0.2)


def test_bootstrap_depends_on_seed_alone_not_on_order_or_memory(monkeypatch):
    random = np.random.default_rng(2)
    label, score, clusters = sample(random, 30, 2, 0.5)
    measures = {"accuracy": METRICS["accuracy"].function, "roc_auc": roc_auc}

    def values(order, seed=0):
        cases = Cases.unweighted(label[order], score[order])
        return intervals.bootstrap_values(cases, clusters[order], measures, resamples=50, seed=seed)

    whole = values(np.arange(60))
    for name, value in values(random.permutation(60)).items():
        np.testing.assert_allclose(value, whole[name], atol=1e-12)
    assert not np.array_equal(values(np.arange(60), seed=1)["roc_auc"], whole["roc_auc"])
    monkeypatch.setattr(intervals, "VALUES_AT_ONCE", 60 * 7)
    for name, value in values(np.arange(60)).items():
        np.testing.assert_array_equal(value, whole[name])
        assert value.shape == (50,)


def test_percentile_interval_leaves_out_undefined_resamples_unless_they_are_many():
    values = np.r_[np.linspace(0, 1, 1001), [np.nan] * 50]
    interval = intervals.percentile_interval(values, 0.5, 0.9)
    assert (interval.low, interval.high) == (pytest.approx(0.05), pytest.approx(0.95))
    assert intervals.percentile_interval(np.r_[values, [np.nan] * 100], 0.5) is None
    assert intervals.percentile_interval(np.array([np.nan]), 0.5) is None


def test_resamples_that_never_vary_give_no_interval():
    assert intervals.percentile_interval(np.ones(100), 1.0) is None


@pytest.mark.parametrize("estimate", [-0.1, 0.01, 0.99, 1.1, np.nan])
def test_an_interval_that_does_not_hold_its_estimate_is_none(estimate):
    assert intervals.percentile_interval(np.linspace(0, 1, 1001), estimate) is None


def test_the_interval_of_a_sum_of_absolute_values_is_where_its_test_does_not_reject():
    """One part far from 0 is the normal interval; many parts of pure noise reach down to 0."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(4000, 1))
    one = intervals.absolute_sum_interval(np.array([-10.0]), -10 + noise)
    assert (one.low, one.high) == (pytest.approx(8.04, abs=0.1), pytest.approx(11.96, abs=0.1))
    covered = []
    for _ in range(60):
        parts = random.normal(size=12)
        interval = intervals.absolute_sum_interval(parts, parts + random.normal(size=(400, 12)))
        assert interval.low <= np.abs(parts).sum() <= interval.high
        covered.append(interval.low == 0)
    assert np.mean(covered) > 0.85
    assert intervals.absolute_sum_interval(np.zeros(3), random.normal(size=(50, 3))) is None
    assert intervals.absolute_sum_interval(np.ones(3), np.ones((50, 3))) is None
