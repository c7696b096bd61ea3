import numpy as np
import pytest

from cxr_jax.evaluation.cases import Cases, calls_of, confidence_of


def test_a_call_is_made_of_one_image_of_many_and_at_many_thresholds():
    assert bool(calls_of(np.float64(0.5), 0.5)) and np.ndim(calls_of(np.float64(0.5), 0.5)) == 0
    assert calls_of(np.array([0.4, 0.5]), 0.5).tolist() == [False, True]
    at_each = calls_of(np.array([0.4, 0.5]), np.array([0.4, 0.5, 0.6]))
    assert at_each.tolist() == [[True, True], [False, True], [False, False]]


def test_confidence_is_the_share_of_the_way_that_a_call_could_go():
    probability = np.array([0.0, 0.1, 0.2, 0.6, 1.0])
    assert confidence_of(probability, 0.2).tolist() == pytest.approx([1.0, 0.5, 0.0, 0.5, 1.0])


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_confidence_is_defined_at_the_ends(threshold):
    probability = np.array([0.0, 0.3, 1.0])
    expected = {0.0: [0, 0.3, 1], 1.0: [1, 0.7, 0]}[threshold]
    assert confidence_of(probability, threshold).tolist() == pytest.approx(expected)


def test_the_curve_sums_weights_at_and_above_every_distinct_probability():
    cases = Cases(np.array([0, 1, 1, 0]), np.array([0.5, 0.9, 0.5, 0.1]), 0.5, np.array([[1.0, 2, 3, 4], [1, 0, 0, 0]]))
    curve = cases.curve
    assert curve.thresholds.tolist() == [0.9, 0.5, 0.1]
    assert curve.positives.tolist() == [[2, 3, 0], [0, 0, 0]]
    assert curve.called_negatives.tolist() == [[0, 1, 5], [0, 1, 1]]


def test_where_keeps_weights_with_their_images():
    cases = Cases(np.array([0, 1, 1]), np.array([0.5, 0.9, 0.5]), 0.5, np.array([[1.0, 2, 3]]))
    kept = cases.where(np.array([True, False, True]))
    assert kept.weights.tolist() == [[1, 3]]
    assert kept.label.tolist() == [0, 1]
    assert kept.total.tolist() == [4]
