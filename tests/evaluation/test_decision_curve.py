import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.decision_curve import THRESHOLDS, decision_curve, net_benefit, treat_all_curve


def test_net_benefit_is_the_published_formula():
    """Vickers & Elkin 2006: TP/n - FP/n * p/(1-p)."""
    label = np.repeat([1, 1, 0, 0], [30, 10, 20, 40])
    probability = np.repeat([0.9, 0.1, 0.9, 0.1], [30, 10, 20, 40])
    cases = Cases.unweighted(label, probability, 0.2)
    assert net_benefit(cases)[0] == pytest.approx(0.30 - 0.20 * 0.25)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_calling_all_has_the_benefit_of_the_share_less_the_weighted_rest(images):
    label, probability = (np.array(column) for column in zip(*images, strict=True))
    share = label.mean()
    np.testing.assert_allclose(treat_all_curve(label), share - (1 - share) * THRESHOLDS / (1 - THRESHOLDS), atol=1e-12)
    curve = decision_curve(label, probability)
    for threshold, benefit in zip(THRESHOLDS, curve, strict=True):
        called = probability >= threshold
        expected = np.mean(called & (label == 1)) - np.mean(called & (label == 0)) * threshold / (1 - threshold)
        assert benefit == pytest.approx(expected, abs=1e-12)
    assert max(curve) <= share + 1e-12
    np.testing.assert_allclose(decision_curve(label, label.astype(float)), share)
