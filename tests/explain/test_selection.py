import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.evaluation.cases import confidence_of
from cxr_jax.explain.selection import OUTCOMES, Calls, select_outcomes, select_worst
from cxr_jax.runs.predictions import Predictions


def table(probability, label, files=None):
    count = len(probability)
    return Predictions(
        file=tuple(files or (f"{number}.jpeg" for number in range(count))),
        split=("test",) * count,
        group=("",) * count,
        subtype=tuple("unknown" if positive else "normal" for positive in label),
        label=np.array(label),
        logits=None,
        probability=np.array(probability),
    )


def calls(predictions, threshold):
    return Calls.at(predictions.file, predictions.probability, predictions.label == 1, threshold)


def test_the_most_confident_errors_come_first():
    predictions = table([0.99, 0.9, 0.6, 0.2, 0.05, 0.7], [1, 0, 0, 1, 1, 1])
    selection = select_worst(calls(predictions, 0.5), 10)
    assert selection.errors == 4
    assert selection.rows.tolist() == [4, 1, 3, 2]  # how far from 0.5: 0.45, 0.4, 0.3, 0.1
    assert select_worst(calls(predictions, 0.5), 2).rows.tolist() == [4, 1]


def test_confidence_is_a_share_of_what_the_threshold_leaves():
    predictions = table([0.95, 0.1], [0, 1])
    # Half way from 0.9 to 1 against eight ninths of the way from 0.9 to 0.
    assert select_worst(calls(predictions, 0.9), 2).rows.tolist() == [1, 0]
    np.testing.assert_allclose(confidence_of(predictions.probability, 0.9), [0.5, 8 / 9])


def test_without_errors_the_least_certain_calls_are_chosen():
    predictions = table([0.9, 0.55, 0.1, 0.48], [1, 1, 0, 0])
    selection = select_worst(calls(predictions, 0.5), 3)
    assert selection.errors == 0
    assert selection.rows.tolist() == [3, 1, 0]


def test_equal_confidence_is_ordered_by_name_whatever_the_order_of_the_table():
    names = ["c", "a", "d", "b"]
    predictions = table([0.8] * 4, [0] * 4, names)
    assert [names[row] for row in select_worst(calls(predictions, 0.5), 3).rows] == ["a", "b", "c"]


@given(st.floats(0, 1), st.floats(0, 1))
def test_confidence_lies_in_0_to_1_at_any_threshold(probability, threshold):
    confidence = confidence_of(np.array([probability]), threshold)
    assert 0 <= confidence[0] <= 1 + 1e-12


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_extreme_thresholds_are_no_division_by_zero(threshold):
    predictions = table([0.0, 0.5, 1.0], [0, 1, 0])
    with np.errstate(all="raise", under="ignore"):
        selection = select_worst(calls(predictions, threshold), 3)
    assert selection.errors == 2


FOUR = table([0.95, 0.7, 0.55, 0.8, 0.6, 0.3, 0.1, 0.4, 0.05], [1, 1, 1, 0, 0, 1, 1, 0, 0])


def test_the_four_outcomes_are_told_apart_by_call_and_truth():
    outcomes = select_outcomes(calls(FOUR, 0.5), 10)
    assert [outcome.name for outcome in outcomes] == list(OUTCOMES)
    assert [sorted(outcome.rows) for outcome in outcomes] == [[0, 1, 2], [3, 4], [5, 6], [7, 8]]
    assert [outcome.total for outcome in outcomes] == [3, 2, 2, 2]


@pytest.mark.parametrize(("rule", "first"), [("confident", [0, 3, 6, 8]), ("uncertain", [2, 4, 5, 7])])
def test_outcomes_follow_the_rule(rule, first):
    assert [int(outcome.rows[0]) for outcome in select_outcomes(calls(FOUR, 0.5), 1, rule)] == first


def test_a_typical_case_has_the_median_confidence():
    assert select_outcomes(calls(FOUR, 0.5), 3, "typical")[0].rows.tolist() == [1, 2, 0]


def test_the_lot_is_the_same_whatever_the_order_of_the_table():
    names = [f"{letter}.jpeg" for letter in "ihgfedcba"]
    shuffled = np.random.default_rng(1).permutation(9)
    before = table(FOUR.probability, FOUR.label, names)
    after = before.select(shuffled)
    for one, other in zip(
        select_outcomes(calls(before, 0.5), 2, "random"), select_outcomes(calls(after, 0.5), 2, "random"), strict=True
    ):
        assert [before.file[row] for row in one.rows] == [after.file[row] for row in other.rows]


def test_an_outcome_without_cases_is_empty():
    outcomes = select_outcomes(calls(table([0.9, 0.1], [1, 0]), 0.5), 3, "typical")
    assert [len(outcome.rows) for outcome in outcomes] == [1, 0, 0, 1]


def test_errors_follow_the_rule_too():
    assert select_worst(calls(FOUR, 0.5), 10, "uncertain").rows.tolist() == [4, 5, 3, 6]
    assert sorted(select_worst(calls(FOUR, 0.5), 10, "random").rows) == [3, 4, 5, 6]


def test_calls_of_several_findings_at_thresholds_of_their_own_are_chosen_among_together():
    parts = [calls(table([0.8, 0.3], [0, 0], ["a", "b"]), 0.5), calls(table([0.8, 0.05], [0, 1], ["a", "c"]), 0.1)]
    together = Calls.together(parts)
    assert together.file == ("a", "b", "a", "c")
    # how far from their thresholds: 0.6, 7/9, 0.5
    assert select_worst(together, 3).rows.tolist() == [2, 0, 3]
