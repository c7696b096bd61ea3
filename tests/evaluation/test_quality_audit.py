import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import delong_covariance
from cxr_jax.evaluation.paired import holm
from cxr_jax.evaluation.quality_audit import FEW, Chance, ErrorAudit, Quantiles, audit_errors, compare_errors, summarise
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import to_json

QUICK = Confidence(resamples=200)


def table(normals=120, pneumonia=100, seed=0, group_size=1):
    """Half of the NORMAL and a third of the PNEUMONIA images are called wrongly, at a threshold of 0.5."""
    label = np.r_[np.zeros(normals, int), np.ones(pneumonia, int)]
    wrong = np.r_[np.arange(normals) % 2 == 0, np.arange(pneumonia) % 3 == 0]
    probability = np.where((label == 1) != wrong, 0.9, 0.1)
    order = np.random.default_rng(seed).permutation(len(label))
    label, probability = label[order], probability[order]
    return Predictions(
        [f"{i}.jpeg" for i in range(len(label))],
        ["test"] * len(label),
        [f"{label[i]}-{i // group_size}" for i in range(len(label))],
        ["bacteria" if positive else "normal" for positive in label],
        label,
        None,
        probability,
    )


def columns_of(predictions, seed=2):
    """One measure that is higher in false positives, one that is lower in them, one without relation, one constant."""
    random = np.random.default_rng(seed)
    wrong = (predictions.probability >= 0.5) != (predictions.label == 1)
    false_positive = wrong & (predictions.label == 0)
    noise = random.normal(size=(3, len(predictions)))
    return {
        "higher": 100 + 30 * false_positive + 20 * noise[0],
        "lower": noise[1] - 1.0 * false_positive,
        "nothing": noise[2],
        "constant": np.ones(len(predictions)),
    }


@pytest.fixture(scope="module")
def audit():
    predictions = table()
    return audit_errors(columns_of(predictions), predictions, 0.5, QUICK), predictions, columns_of(predictions)


def test_counts_and_means_are_those_of_the_images(audit):
    result, predictions, columns = audit
    for kind, label in (("false_positives", 0), ("false_negatives", 1)):
        own = predictions.label == label
        wrong = own & ((predictions.probability >= 0.5) != (predictions.label == 1))
        right = own & ~wrong
        assert result[kind].errors == wrong.sum()
        assert result[kind].right == right.sum()
        for name in ("higher", "lower", "nothing"):
            entry = result[kind].measures[name]
            assert entry.error_mean == pytest.approx(columns[name][wrong].mean())
            assert entry.right_mean == pytest.approx(columns[name][right].mean())
            assert entry.difference == pytest.approx(entry.error_mean - entry.right_mean)
            parts = columns[name][wrong], columns[name][right]
            pooled = np.sqrt(
                sum((len(part) - 1) * part.var(ddof=1) for part in parts) / (len(parts[0]) + len(parts[1]) - 2)
            )
            assert entry.standardised == pytest.approx(entry.difference / pooled)
            assert entry.interval.low < entry.difference < entry.interval.high


def test_the_probability_of_being_higher_is_that_of_mann_and_whitney(audit):
    result, predictions, columns = audit
    own = predictions.label == 0
    wrong = predictions.probability >= 0.5
    for name in ("higher", "lower", "nothing"):
        entry = result["false_positives"].measures[name]
        first, second = columns[name][own & wrong], columns[name][own & ~wrong]
        test = mannwhitneyu(first, second)
        assert entry.higher.value == pytest.approx(test.statistic / len(first) / len(second))
        # DeLong's error stands on the ranks as they are, Mann and Whitney's on no relation: alike where there is none
        if name == "nothing":
            assert entry.p_value == pytest.approx(test.pvalue, abs=0.03)
        area, variance = delong_covariance(wrong[own].astype(int), columns[name][own])
        half = 1.959964 * np.sqrt(variance[0, 0])
        assert entry.higher.interval.low == pytest.approx(max(area[0] - half, 0))
        assert entry.higher.interval.high == pytest.approx(min(area[0] + half, 1))


def test_planted_relations_are_found_and_no_others(audit):
    result = audit[0]
    measures = result["false_positives"].measures
    assert [measures[name].verdict for name in ("higher", "lower", "nothing")] == ["higher", "lower", "not shown"]
    assert measures["constant"] is None
    assert {entry.verdict for entry in result["false_negatives"].measures.values() if entry} == {"not shown"}
    tested = [entry for entry in measures.values() if entry]
    assert [entry.adjusted_p_value for entry in tested] == holm([entry.p_value for entry in tested])
    json.dumps(to_json(result), allow_nan=False)


def test_without_relation_a_difference_is_rarely_shown():
    """At most one in twenty audits may show any of five measures by chance; of 80 that is 4, give or take."""
    random = np.random.default_rng(3)
    wrong, few = np.arange(200) % 2 == 0, Confidence(resamples=2)
    shown = 0
    for _ in range(80):
        columns = {str(index): random.normal(size=200) for index in range(5)}
        measures = compare_errors(columns, wrong, None, few).measures
        shown += any(entry.verdict != "not shown" for entry in measures.values())
    assert shown <= 10


def test_a_measure_that_parts_errors_from_the_rest_has_no_test():
    """Its variance cannot be estimated from ranks that leave nothing open."""
    wrong = np.arange(60) < 30
    entry = compare_errors({"level": wrong + 0.0 + np.arange(60) / 1000}, wrong, None, QUICK).measures["level"]
    assert entry.higher == Chance(1.0, None)
    assert entry.verdict == "not tested"


def test_images_of_one_group_count_as_less_evidence():
    """Thirty times the same patient is not thirty patients."""
    random = np.random.default_rng(4)
    clusters = np.repeat(np.arange(12), 10)
    wrong = clusters % 2 == 0
    values = {"level": random.normal(size=12)[clusters] + 0.01 * random.normal(size=120)}
    alone, grouped = (compare_errors(values, wrong, part, QUICK).measures["level"] for part in (None, clusters))
    assert grouped.difference == alone.difference
    widths = [entry.interval.high - entry.interval.low for entry in (alone, grouped)]
    assert widths[1] > 1.7 * widths[0]
    assert grouped.p_value > alone.p_value
    assert (alone.interval.method, grouped.interval.method) == ("bootstrap", "group bootstrap")
    assert (alone.higher.interval.method, grouped.higher.interval.method) == ("DeLong", "Obuchowski")


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.floats(0.1, 100), st.floats(-1000, 1000))
def test_the_order_of_images_and_the_unit_do_not_matter(seed, factor, shift):
    predictions = table(60, 60)
    columns = columns_of(predictions)
    order = np.random.default_rng(seed).permutation(len(predictions))
    moved = {name: factor * values[order] + shift for name, values in columns.items()}
    one = audit_errors(columns, predictions, 0.5, QUICK)["false_positives"].measures["higher"]
    other = audit_errors(moved, predictions.select(order), 0.5, QUICK)["false_positives"].measures["higher"]
    assert other.difference == pytest.approx(factor * one.difference, rel=1e-6)
    assert other.standardised == pytest.approx(one.standardised, rel=1e-6)
    assert other.higher.value == pytest.approx(one.higher.value)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-6)


@pytest.mark.parametrize("errors", [1, 2, FEW - 1, FEW])
def test_few_errors_are_described_and_not_tested(errors):
    wrong = np.arange(100) < errors
    values = np.random.default_rng(0).normal(size=100) + 2 * wrong
    entry = compare_errors({"level": values}, wrong, None, QUICK).measures["level"]
    assert entry.difference > 1
    tested = errors == FEW
    assert (entry.p_value is not None) == (entry.adjusted_p_value is not None) == tested
    assert entry.verdict == ("higher" if tested else "not tested")


@pytest.mark.parametrize("wrong", [np.zeros(30, bool), np.ones(30, bool)])
def test_without_errors_or_without_right_calls_nothing_is_compared(wrong):
    result = compare_errors({"level": np.arange(30.0)}, wrong, None, QUICK)
    assert result == ErrorAudit(errors=wrong.sum(), right=30 - wrong.sum(), measures={"level": None})


def test_two_images_have_a_difference_and_nothing_else():
    entry = compare_errors({"level": np.array([1.0, 3.0])}, np.array([True, False]), None, QUICK).measures["level"]
    assert entry.difference == -2
    assert entry.standardised is None
    assert entry.higher == Chance(0.0, None)


def test_a_class_that_is_missing_has_no_errors():
    predictions = table()
    only = predictions.select(predictions.label == 1)
    assert audit_errors(columns_of(only), only, 0.5, QUICK)["false_positives"].errors == 0


def test_a_summary_is_quantiles():
    assert summarise({"level": np.arange(101.0)}) == {"level": Quantiles(5.0, 50.0, 95.0)}
