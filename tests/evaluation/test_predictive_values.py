import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.evaluation.predictive_values import Share, predictive_values


def test_of_a_thousand_children_with_fifty_ill():
    # 45 of 50 ill are called, and 190 of 950 well: 45 of 235 calls are right, and 760 of 765
    found = predictive_values(Share(0.9), Share(0.8), 0.05)
    assert found.of_pneumonia.value == pytest.approx(45 / 235)
    assert found.of_normal.value == pytest.approx(760 / 765)
    assert found.of_pneumonia.low is found.of_normal.high is None


def test_the_ends_come_from_the_ends_of_both_intervals():
    found = predictive_values(Share(0.9, 0.8, 1.0), Share(0.8, 0.7, 0.9), 0.1)
    assert found.of_pneumonia.low == pytest.approx(0.08 / (0.08 + 0.27))
    assert found.of_pneumonia.high == pytest.approx(0.1 / (0.1 + 0.09))
    assert found.of_normal.low == pytest.approx(0.63 / (0.63 + 0.02))
    assert found.of_normal.high == 1


rates = st.floats(0.01, 0.99)


@given(rates, rates, rates)
def test_at_the_share_of_the_judged_images_they_are_the_shares_of_their_calls(sensitivity, specificity, prevalence):
    found = predictive_values(Share(sensitivity), Share(specificity), prevalence)
    ill, well = 1e6 * prevalence, 1e6 * (1 - prevalence)
    called = ill * sensitivity + well * (1 - specificity)
    assert found.of_pneumonia.value == pytest.approx(ill * sensitivity / called)
    assert found.of_normal.value == pytest.approx(well * specificity / (1e6 - called))


@given(rates, st.tuples(rates, rates, rates).map(sorted), st.tuples(rates, rates, rates).map(sorted))
def test_the_ends_hold_the_value(prevalence, first, second):
    sensitivity, specificity = (Share(middle, low, high) for low, middle, high in (first, second))
    found = predictive_values(sensitivity, specificity, prevalence)
    for share in (found.of_pneumonia, found.of_normal):
        assert share.low - 1e-12 <= share.value <= share.high + 1e-12


def test_without_such_calls_there_is_nothing_to_tell():
    found = predictive_values(Share(0.0), Share(1.0), 0.3)
    assert found.of_pneumonia is None
    assert found.of_normal.value == pytest.approx(0.7)


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, 2])
def test_a_prevalence_is_a_share_of_some(prevalence):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        predictive_values(Share(0.5), Share(0.5), prevalence)
