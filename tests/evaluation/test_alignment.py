"""Alignment to a declared prevalence, tried where the truth is known: scores drawn for each class, and shifted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from cxr_jax.evaluation.alignment import align, halves, judge_aligned
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.metrics import metric_value, threshold_at_sensitivity
from cxr_jax.runs.predictions import Predictions


def drawn(count, prevalence, seed, *, shift=0.0, stretch=1.0):
    """Predictions on images of two a group, whose margins are normal in each class, then stretched and shifted."""
    random = np.random.default_rng(seed)
    label = (random.random(count) < prevalence).astype(int)
    margin = stretch * (random.normal(2 * (2 * label - 1), 1.2)) + shift
    names = [f"{seed}-{number}" for number in range(count)]
    groups = [f"{seed}-{number // 2}" for number in range(count)]
    return Predictions(names, ["test"] * count, groups, ["normal"] * count, label, None, expit(margin))


@pytest.fixture(scope="module")
def validation():
    return drawn(6000, 0.75, 1)


@pytest.fixture(scope="module")
def threshold(validation):
    return threshold_at_sensitivity(Cases.unweighted(validation.label, validation.probability), 0.95)


def rates(predictions, probability, threshold):
    cases = Cases.unweighted(predictions.label, probability, threshold)
    return [metric_value(name, cases) for name in ("sensitivity", "specificity")]


@pytest.mark.parametrize(("shift", "stretch"), [(1.5, 1.0), (-1.0, 0.6), (0.0, 1.0)])
def test_with_the_right_prevalence_a_shift_of_all_scores_is_undone(validation, threshold, shift, stretch):
    test = drawn(6000, 0.5, 2, shift=shift, stretch=stretch)
    promised = rates(validation, validation.probability, threshold)
    found = rates(test, align(validation, test.probability, halves(test, seed=0), 0.5), threshold)
    # about four standard errors of a rate on 3,000 images
    np.testing.assert_allclose(found, promised, atol=0.025)
    if shift:
        unaligned = rates(test, test.probability, threshold)
        assert np.abs(np.subtract(unaligned, promised)).max() > 0.05


def test_a_wrong_prevalence_moves_the_calls_to_its_own_share(validation, threshold):
    """What the assumption is worth: images are then called PNEUMONIA as often as was declared, right or not."""
    test = drawn(6000, 0.5, 3, shift=1.0)
    sensitivity, specificity = rates(validation, validation.probability, threshold)
    for declared in (0.3, 0.5, 0.7):
        aligned = align(validation, test.probability, halves(test, seed=0), declared)
        expected = declared * sensitivity + (1 - declared) * (1 - specificity)
        assert np.mean(aligned >= threshold) == pytest.approx(expected, abs=0.02)


def test_labels_have_no_part_and_each_half_is_moved_by_the_other(validation):
    test = drawn(400, 0.5, 4)
    second = halves(test, seed=0)
    aligned = align(validation, test.probability, second, 0.6)
    changed = np.where(second, test.probability**2, test.probability)
    again = align(validation, changed, second, 0.6)
    # the second half gives the curve of the first, whose other images then have no say
    assert (again[~second] != aligned[~second]).mean() > 0.9
    one = np.flatnonzero(~second)[0]
    probability = test.probability.copy()
    probability[one] = 0.123
    others = np.arange(400) != one
    moved = align(validation, probability, second, 0.6)
    np.testing.assert_array_equal(moved[~second & others], aligned[~second & others])
    assert (moved[second] != aligned[second]).any()
    # the curve rises, and stays within probabilities
    for half in (second, ~second):
        assert (np.diff(aligned[half][np.argsort(test.probability[half])]) >= 0).all()
    assert ((aligned >= 0) & (aligned <= 1)).all()


def test_halves_are_of_whole_groups_and_nearly_equal():
    test = drawn(301, 0.5, 5)
    second = halves(test, seed=0)
    of_group = {}
    for group, half in zip(test.group, second, strict=True):
        assert of_group.setdefault(group, half) == half
    assert abs(second.sum() - 150.5) <= 1.5
    assert (halves(test, seed=1) != second).any()
    np.testing.assert_array_equal(halves(test, seed=0), second)
    alone = Predictions(["a", "b"], ["", ""], ["one", "one"], ["normal"] * 2, [0, 1], None, [0.2, 0.8])
    with pytest.raises(ValueError, match="one group"):
        halves(alone, seed=0)


def test_what_is_told_is_measured_on_the_aligned_probabilities(validation, threshold):
    test = drawn(600, 0.5, 6, shift=1.5)
    told = judge_aligned(validation, test, threshold, 0.5, Confidence(resamples=100))
    aligned = align(validation, test.probability, halves(test, seed=0), 0.5)
    sensitivity, specificity = rates(test, aligned, threshold)
    assert told.metrics["sensitivity"].value == sensitivity
    assert told.metrics["specificity"].value == specificity
    assert told.metrics["balanced_accuracy"].value == pytest.approx((sensitivity + specificity) / 2)
    assert told.metrics["accuracy"].interval is not None
    assert told.called == np.mean(aligned >= threshold) < told.called_before
    assert told.transductive
    with pytest.raises(ValueError, match="must be above 0 and below 1"):
        judge_aligned(validation, test, threshold, 1.0, Confidence(resamples=100))
