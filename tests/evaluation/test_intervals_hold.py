"""No interval is shown beside a number that lies outside of it: every statistic with a bootstrap is asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.evaluation.baselines import judge_baselines
from cxr_jax.evaluation.calibration import expected_calibration_error
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.comparison import Recipe, compare
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge import judge
from cxr_jax.evaluation.quality_audit import audit_errors
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import to_json

FEW = Confidence(resamples=60)

ROUNDING = 1e-12


def table(seed, count, separation, group_size, split, sharpness=1.0):
    """Made-up predictions of both classes, in groups of `group_size`, on one image each without."""
    random = np.random.default_rng(seed)
    label = np.arange(count) % 2
    margin = random.normal(size=count) + separation * (2 * label - 1)
    group = [f"{split}-{i // 2 // group_size}-{label[i]}" if group_size else "" for i in range(count)]
    probability = 1 / (1 + np.exp(-sharpness * margin))
    subtype = [("bacteria", "virus")[i % 4 // 2] if label[i] else "normal" for i in range(count)]
    names = [f"{split}/{i}" for i in range(count)]
    return Predictions(names, [split] * count, group, subtype, label, None, probability)


def measured(value):
    """Yields (value, low, high) of everything that has a value and intervals, however deep."""
    if isinstance(value, dict):
        for interval in value.get("intervals") or []:
            yield value["value"], interval["low"], interval["high"]
        estimate = next((value[name] for name in ("difference", "mean", "value") if name in value), None)
        if value.get("interval"):
            if estimate is None:
                estimate = value.get("higher_on_test", value.get("share_of_pneumonia"))
            yield estimate, value["interval"]["low"], value["interval"]["high"]
        for name, entry in value.items():
            if name != "over_seeds":
                yield from measured(entry)
        if value.get("over_seeds"):
            again = value["over_seeds"]["interval"]
            yield value["difference"], again["low"], again["high"]
    elif isinstance(value, list):
        for entry in value:
            yield from measured(entry)


def assert_held(result, least):
    found = list(measured(result))
    assert len(found) >= least
    for value, low, high in found:
        assert low - ROUNDING <= value <= high + ROUNDING


tables = st.tuples(
    st.integers(0, 10_000),
    st.sampled_from([12, 40, 90]),
    st.floats(0, 2),
    st.sampled_from([0, 1, 3]),
    st.floats(0.3, 4),
)


@settings(max_examples=25, deadline=None)
@given(tables)
def test_in_a_judgement(made):
    seed, count, separation, group_size, sharpness = made
    validation, test = (
        table(seed + index, count, separation, group_size, split, sharpness)
        for index, split in enumerate(("val", "test"))
    )
    assert_held(judge(validation, test, 0.5, confidence=FEW).as_json(), 60)


@settings(max_examples=10, deadline=None)
@given(tables)
def test_in_a_comparison(made):
    seed, count, separation, group_size, sharpness = made
    seeds = [table(seed + i, count, separation + i / 4, group_size, "test", sharpness) for i in range(4)]
    recipes = [Recipe("first", tuple(seeds[:2]), (0.3, 0.4)), Recipe("second", tuple(seeds[2:]), (0.5, 0.6))]
    assert_held(compare(recipes, FEW).as_json(), 20)


@settings(max_examples=10, deadline=None)
@given(tables)
def test_in_the_audit_of_errors_and_the_baselines(made):
    seed, count, separation, group_size, sharpness = made
    validation, test = (table(seed + i, count, separation, group_size, str(i), sharpness) for i in range(2))
    random = np.random.default_rng(seed)
    columns = {"skewed": random.lognormal(0, 2, count), "rare": (random.random(count) < 0.1).astype(float)}
    assert_held(to_json(audit_errors(columns, test, 0.5, FEW)), 0)
    baselines = judge_baselines(columns, test.label, (columns, validation), (columns, test), FEW)
    assert_held(to_json(baselines), 8)


@pytest.mark.parametrize("group_size", [0, 3])
def test_calibrated_probabilities_have_a_calibration_error_that_may_be_nothing(group_size):
    """The percentiles of resampled errors never held the true error of 0."""
    held = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        margin = np.repeat(random.normal(0, 2, 100 // max(group_size, 1)), max(group_size, 1))
        probability = 1 / (1 + np.exp(-margin))
        label = (random.random(len(margin)) < probability).astype(int)
        label[:2] = 0, 1
        group = [str(i // group_size) if group_size else "" for i in range(len(label))]
        subtype = ["unknown" if positive else "normal" for positive in label]
        names = [str(i) for i in range(len(label))]
        predictions = Predictions(names, ["test"] * len(label), group, subtype, label, None, probability)
        error = judge(None, predictions, 0.5, confidence=FEW).test.calibration.before.error("width", 10)
        assert error.value == pytest.approx(
            expected_calibration_error(Cases.unweighted(label, probability), "width", 10)[0]
        )
        held += error.interval.low == 0
    assert held >= 34
