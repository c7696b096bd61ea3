import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from cxr_jax.evaluation import calibration
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.metrics import log_loss, roc_auc
from cxr_jax.runs.predictions import Predictions


def overconfident(count=4000, factor=2.5, seed=0):
    """Margins that are `factor` times too large for their labels."""
    random = np.random.default_rng(seed)
    honest = random.normal(size=count) * 2 + 0.5
    label = (random.uniform(size=count) < expit(honest)).astype(int)
    return factor * honest, label


def test_the_temperature_is_the_factor_by_which_margins_are_too_large():
    margins, label = overconfident()
    assert calibration.fit_temperature(margins, label) == pytest.approx(2.5, rel=0.08)


@given(seed=st.integers(0, 50), factor=st.sampled_from([0.3, 1.0, 4.0]))
def test_the_temperature_minimises_the_log_loss(seed, factor):
    margins, label = overconfident(200, factor, seed)

    def loss(log_t):
        return float(np.mean(np.logaddexp(0, margins / np.exp(log_t)) - label * margins / np.exp(log_t)))

    best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert np.log(calibration.fit_temperature(margins, label)) == pytest.approx(best.x, abs=1e-4)


def test_scaling_keeps_the_ranking_and_lowers_loss_and_error():
    margins, label = overconfident()
    before = Cases.unweighted(label, expit(margins))
    after = Cases.unweighted(label, calibration.apply_temperature(margins, calibration.fit_temperature(margins, label)))
    assert roc_auc(after)[0] == pytest.approx(roc_auc(before)[0])
    assert log_loss(after)[0] < log_loss(before)[0] - 0.05
    assert calibration.expected_calibration_error(after)[0] < 0.03
    assert calibration.expected_calibration_error(before)[0] > 0.08


@pytest.mark.parametrize(
    ("margins", "label"),
    [
        ([1.0, 2.0, 3.0], [1, 1, 1]),
        ([-1.0, -2.0, 2.0, 3.0], [0, 0, 1, 1]),
        ([2.0, 3.0, -2.0, -3.0], [0, 0, 1, 1]),
        ([0.0, 0.0], [0, 1]),
    ],
)
def test_no_temperature_where_the_loss_has_no_minimum(margins, label):
    assert calibration.fit_temperature(np.array(margins), np.array(label)) is None


def test_margins_come_from_logits_or_else_from_the_probability():
    label = [0, 1, 1]
    logits = np.array([[2.0, -1.0], [0.0, 1.5], [0.0, 30.0]])
    common = {"file": "abc", "split": [""] * 3, "group": [""] * 3, "subtype": ["normal", "virus", "virus"]}
    with_logits = Predictions.from_logits(logits, **common, label=label)
    assert calibration.margins_of(with_logits).tolist() == [-3.0, 1.5, 30.0]
    without = Predictions(**common, label=label, logits=None, probability=with_logits.probability)
    np.testing.assert_allclose(calibration.margins_of(without), [-3.0, 1.5, 30.0], rtol=1e-3)
    certain = Predictions(**common, label=label, logits=None, probability=[0.0, 1.0, 1.0])
    assert np.isfinite(calibration.margins_of(certain)).all()


@pytest.mark.parametrize("strategy", ["width", "mass"])
def test_the_curve_is_that_of_scikit_learn(strategy):
    margins, label = overconfident(500)
    probability = expit(margins)
    bins = calibration.reliability_curve(label, probability, strategy, 8)
    name = {"width": "uniform", "mass": "quantile"}[strategy]
    share, mean = calibration_curve(label, probability, n_bins=8, strategy=name)
    np.testing.assert_allclose([b.share_of_pneumonia for b in bins], share)
    np.testing.assert_allclose([b.mean_probability for b in bins], mean)
    assert sum(b.images for b in bins) == 500
    for b in bins:
        assert b.low <= b.mean_probability <= b.high
        assert b.interval.low <= b.share_of_pneumonia <= b.interval.high


@given(
    images=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]) | st.floats(0, 1)), min_size=1
    ),
    bins=st.sampled_from([1, 2, 10, 15]),
    binning=st.sampled_from(["width", "mass"]),
    seed=st.integers(0, 99),
)
def test_the_error_is_the_weighted_gap_of_the_curve_in_any_order(images, bins, binning, seed):
    label, probability = (np.array(column) for column in zip(*images, strict=True))
    curve = calibration.reliability_curve(label, probability, binning, bins)
    expected = sum(b.images * abs(b.mean_probability - b.share_of_pneumonia) for b in curve) / len(label)
    error = calibration.expected_calibration_error(Cases.unweighted(label, probability), binning, bins)[0]
    assert error == pytest.approx(expected, abs=1e-12)
    assert 0 <= error <= 1
    order = np.random.default_rng(seed).permutation(len(label))
    again = calibration.expected_calibration_error(Cases.unweighted(label[order], probability[order]), binning, bins)[0]
    assert again == pytest.approx(error, abs=1e-12)


def test_bins_of_equal_mass_hold_equal_numbers():
    probability = np.random.default_rng(0).uniform(size=1000)
    index, edges = calibration.bin_index(probability, "mass", 10)
    assert np.bincount(index).tolist() == [100] * 10
    assert len(edges) == 11


def test_the_error_under_weights_is_that_of_repeated_images_in_the_same_bins():
    label = np.array([0, 1, 1, 0])
    probability = np.array([0.1, 0.4, 0.8, 0.9])
    weighted = Cases(label, probability, 0.5, np.array([[2.0, 0.0, 1.0, 1.0]]))
    repeated = Cases.unweighted([0, 0, 1, 0], [0.1, 0.1, 0.8, 0.9])
    one, other = (calibration.expected_calibration_error(cases, "width", 4)[0] for cases in (weighted, repeated))
    assert one == pytest.approx(other)
    assert one == pytest.approx((0.2 + 0.7) / 4)


def miscalibrated(seed=0, count=600, *, shift=1.5, slope=0.6, groups=150):
    """Margins whose true logits are `shift + slope * margin`, labels in groups that share a part of their luck."""
    random = np.random.default_rng(seed)
    clusters = random.integers(0, groups, count)
    margins = random.normal(0, 2, count)
    label = (random.random(count) < expit(shift + slope * margins + random.normal(0, 0.5, groups)[clusters])).astype(
        int
    )
    return margins, label, clusters


def sandwich(design, label, probability, clusters):
    """The covariance of coefficients over clusters, term by term (Liang & Zeger 1986, as statsmodels computes it)."""
    hessian, meat = (np.zeros((design.shape[1],) * 2) for _ in range(2))
    for row, p in zip(design, probability, strict=True):
        hessian += p * (1 - p) * np.outer(row, row)
    names = np.unique(clusters)
    for name in names:
        score = sum((label[i] - probability[i]) * design[i] for i in np.flatnonzero(clusters == name))
        meat += np.outer(score, score)
    return np.linalg.inv(hessian) @ meat @ np.linalg.inv(hessian) * len(names) / (len(names) - 1)


def assert_coefficient(found, value, variance, method):
    assert found.value == pytest.approx(value, abs=1e-5)
    half = 1.959964 * np.sqrt(variance)
    assert found.interval.low == pytest.approx(value - half, abs=1e-4)
    assert found.interval.high == pytest.approx(value + half, abs=1e-4)
    assert found.interval.method == method


@pytest.mark.parametrize("grouped", [True, False])
def test_slope_and_intercept_are_those_of_scikit_learn_with_the_sandwich_over_groups(grouped):
    margins, label, clusters = miscalibrated()
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(margins[:, None], label)
    intercept, slope = calibration.recalibration(margins, label, clusters if grouped else None)
    design = np.stack([np.ones(600), margins], axis=1)
    probability = theirs.predict_proba(margins[:, None])[:, 1]
    covariance = sandwich(design, label, probability, clusters if grouped else np.arange(600))
    method = "sandwich by groups" if grouped else "sandwich"
    assert_coefficient(intercept, theirs.intercept_[0], covariance[0, 0], method)
    assert_coefficient(slope, theirs.coef_[0, 0], covariance[1, 1], method)
    assert slope.interval.low < 0.6 < slope.interval.high


def test_calibration_in_the_large_makes_the_mean_probability_the_share():
    margins, label, clusters = miscalibrated()
    found = calibration.calibration_in_the_large(margins, label, clusters)
    shifted = expit(margins + found.value)
    assert shifted.mean() == pytest.approx(label.mean(), abs=1e-9)
    variance = sandwich(np.ones((600, 1)), label, shifted, clusters)[0, 0]
    assert_coefficient(found, found.value, variance, "sandwich by groups")
    assert found.interval.low > 0


def test_a_temperature_mends_a_slope_and_leaves_what_is_added():
    margins, label, _ = miscalibrated()
    intercept, slope = calibration.recalibration(margins, label)
    again_intercept, again_slope = calibration.recalibration(margins / 3, label)
    assert again_slope.value == pytest.approx(3 * slope.value)
    assert again_intercept.value == pytest.approx(intercept.value)


@pytest.mark.parametrize("seed", range(5))
def test_intervals_of_a_recalibration_cover_the_truth(seed):
    """Without luck shared in groups the true coefficients are known."""
    hits = np.zeros(3)
    trials = 60
    for trial in range(trials):
        random = np.random.default_rng(100 * seed + trial)
        margins = random.normal(0, 2, 400)
        label = (random.random(400) < expit(1 + margins)).astype(int)
        found = (*calibration.recalibration(margins, label), calibration.calibration_in_the_large(margins, label))
        hits += [
            entry.interval.low <= truth <= entry.interval.high for entry, truth in zip(found, (1, 1, 1), strict=True)
        ]
    assert (hits / trials >= 0.85).all()


@pytest.mark.parametrize(
    ("margins", "label"),
    [
        ([-1.0, 0, 1], [1, 1, 1]),
        ([-1.0, 0, 1, 2], [0, 0, 1, 1]),
        ([-1.0, 0, 1, 2], [1, 1, 0, 0]),
        ([1.0, 1, 1], [0, 1, 1]),
    ],
)
def test_nothing_is_recalibrated_by_one_class_or_classes_without_overlap(margins, label):
    margins, label = np.array(margins), np.array(label)
    assert calibration.recalibration(margins, label) is None
    large = calibration.calibration_in_the_large(margins, label)
    if len(set(label.tolist())) == 1:
        assert large is None
    else:
        assert expit(margins + large.value).mean() == pytest.approx(label.mean())


def test_scores_so_sure_that_probabilities_are_zero_and_one_are_recalibrated():
    random = np.random.default_rng(0)
    margins = random.normal(0, 400, 200)
    label = (margins + random.normal(0, 300, 200) > 0).astype(int)
    intercept, slope = calibration.recalibration(margins, label)
    assert 0 < slope.value < 0.1
    assert np.isfinite([intercept.value, slope.interval.low, slope.interval.high]).all()
    assert np.isfinite(calibration.calibration_in_the_large(margins, label).value)
