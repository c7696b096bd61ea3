"""A judgement of validation and test: every number, its intervals and where it comes from."""

import dataclasses
import functools
import json
import re

import numpy as np
import pytest

from cxr_jax.evaluation import measures
from cxr_jax.evaluation.calibration import calibration_in_the_large, recalibration
from cxr_jax.evaluation.cases import Cases, confidence_of
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import auc_interval, wilson_interval
from cxr_jax.evaluation.judge import WORST_ERRORS, judge, resamples_in_all
from cxr_jax.evaluation.metrics import CALL_METRICS, METRICS, specificity_at_sensitivity
from cxr_jax.evaluation.rule_draws import RuledNetwork, draw_rule
from tests.counted_calls import counted_calls
from tests.evaluation.judged_tables import QUICK, judged, made_up


@pytest.fixture(scope="module")
def judgement(validation, test_split, point):
    return judged(validation, test_split, point.threshold, operating_point=point, confidence=QUICK)


def test_a_judgement_is_json_with_a_version(judgement):
    assert json.loads(json.dumps(judgement, allow_nan=False)) == judgement
    assert judgement["schema_version"] == 2
    assert judgement["confidence"] == {"level": 0.95, "resamples": 100, "seed": 0}


def test_every_number_is_that_of_the_table(judgement, test_split, point, metric_values):
    expected = metric_values(test_split.label, test_split.probability, point.threshold)
    metrics = judgement["test"]["metrics"]
    assert {name: entry["value"] for name, entry in metrics.items()} == expected
    called = test_split.probability >= point.threshold
    confusion = judgement["test"]["confusion"]
    assert confusion[0][1] == np.sum(called & (test_split.label == 0))
    assert confusion[1][1] == np.sum(called & (test_split.label == 1))
    assert np.sum(confusion) == 240
    assert judgement["test"]["classes"] == {"NORMAL": 90, "PNEUMONIA": 150}
    assert judgement["test"]["subtypes"] == {"normal": 90, "bacteria": 100, "virus": 50}
    assert judgement["test"]["groups"] == len(set(test_split.group))
    assert judgement["test"]["all_pneumonia_accuracy"] == 150 / 240


def test_every_interval_holds_its_value(judgement):
    def walk(value):
        if isinstance(value, dict):
            if "intervals" in value and value["value"] is not None:
                yield value
            for entry in value.values():
                yield from walk(entry)
        elif isinstance(value, list):
            for entry in value:
                yield from walk(entry)

    found = list(walk(judgement))
    assert len(found) > 60
    for entry in found:
        for interval in entry["intervals"]:
            assert interval["low"] <= entry["value"] <= interval["high"], entry["title"]
            assert interval["low"] < interval["high"]


def test_the_shown_interval_respects_groups(judgement, test_split):
    metrics = judgement["test"]["metrics"]
    auc = metrics["roc_auc"]["intervals"]
    assert [interval["method"] for interval in auc] == ["Obuchowski, logit", "group bootstrap", "DeLong, logit"]
    by_group = auc_interval(test_split.label, test_split.probability, test_split.clusters())
    assert (auc[0]["low"], auc[0]["high"]) == (by_group.low, by_group.high)
    assert [i["method"] for i in metrics["accuracy"]["intervals"]] == ["Wilson by groups", "group bootstrap", "Wilson"]
    right = sum(judgement["test"]["confusion"][i][i] for i in (0, 1))
    assert metrics["accuracy"]["intervals"][2]["low"] == wilson_interval(right, 240).low


def test_a_subtype_is_judged_against_all_normals(judgement, test_split, point, metric_values):
    rows = [i for i, kind in enumerate(test_split.subtype) if kind in ("normal", "virus")]
    virus = test_split.select(np.array(rows))
    expected = metric_values(virus.label, virus.probability, point.threshold)
    judged = judgement["test"]["by_subtype"]["virus"]
    assert judged["sensitivity"]["value"] == expected["sensitivity"]
    assert judged["roc_auc"]["value"] == expected["roc_auc"]
    interval = auc_interval(virus.label, virus.probability, virus.clusters())
    assert judged["roc_auc"]["intervals"][0]["low"] == pytest.approx(interval.low)


def test_calls_are_judged_at_one_half_too(judgement, validation, test_split, metric_values):
    for name, predictions in (("validation", validation), ("test", test_split)):
        half = judgement[name]["at_one_half"]
        expected = metric_values(predictions.label, predictions.probability, 0.5)
        assert {metric: entry["value"] for metric, entry in half["metrics"].items()} == {
            metric: expected[metric] for metric in CALL_METRICS
        }
        called = predictions.probability >= 0.5
        counts = [[int(np.sum((predictions.label == i) & (called == j))) for j in (0, 1)] for i in (0, 1)]
        assert half["confusion"] == counts != judgement[name]["confusion"]
        assert half["metrics"]["accuracy"]["intervals"][0]["method"] == "Wilson by groups"
        assert half["metrics"]["f1"]["intervals"][0]["method"] == "group bootstrap"


def test_the_metrics_of_calls_are_those_that_a_threshold_changes(test_split, metric_values):
    low, high = (metric_values(test_split.label, test_split.probability, threshold) for threshold in (0.2, 0.8))
    assert {name for name in METRICS if low[name] != high[name]} == set(CALL_METRICS)


def test_every_number_comes_from_a_function_that_names_its_source(validation, test_split, point, monkeypatch):
    seen = {}

    def watched(predictions, threshold, entries, *others):
        seen.update({name: entry.metric for name, entry in entries.items()})
        return measures.measure(predictions, threshold, entries, *others)

    monkeypatch.setattr("cxr_jax.evaluation.judge.measure", watched)
    judged(validation, test_split, point.threshold, operating_point=point, confidence=QUICK)
    assert {name[0] for name in seen} == {"metrics", "by_group", "at_one_half", "by_subtype", "target", "calibration"}
    for name, metric in seen.items():
        function = metric.function
        while isinstance(function, functools.partial):
            function = function.func
        assert re.search(r"\b(18|19|20)\d\d\b", function.__doc__), name
        assert len(function.__doc__) > 40, name


def test_the_transferred_threshold_is_that_of_validation(judgement, validation, test_split, metric_values):
    for entry in judgement["test"]["specificity_at_sensitivity"]:
        target = entry["target"]
        cases = Cases.unweighted(test_split.label, test_split.probability)
        assert entry["read_off"]["value"] == specificity_at_sensitivity(cases, target)[0]
        transferred = entry["transferred"]
        on_validation = np.mean(validation.probability[validation.label == 1] >= transferred["threshold"])
        assert target <= on_validation < target + 0.02
        expected = metric_values(test_split.label, test_split.probability, transferred["threshold"])
        assert transferred["specificity"]["value"] == expected["specificity"]
        assert transferred["sensitivity"]["value"] == expected["sensitivity"]
        assert transferred["threshold"] != entry["threshold"]


def test_calibration_is_told_before_and_after_the_temperature_of_validation(judgement, point):
    calibration = judgement["test"]["calibration"]
    assert calibration["temperature"] == point.temperature
    assert calibration["before"]["brier"]["value"] == judgement["test"]["metrics"]["brier"]["value"]
    assert calibration["after"]["log_loss"]["value"] != calibration["before"]["log_loss"]["value"]
    assert [(e["binning"], e["bins"]) for e in calibration["before"]["errors"]] == [
        ("width", 10),
        ("width", 15),
        ("mass", 10),
        ("mass", 15),
    ]
    assert sum(b["images"] for b in calibration["after"]["curve"]) == 240
    own = judgement["validation"]["calibration"]
    assert own["after"]["log_loss"]["value"] <= own["before"]["log_loss"]["value"]


def test_the_worst_errors_come_first_and_are_errors(judgement, test_split, point):
    errors = judgement["test"]["worst_errors"]
    wrong = (test_split.probability >= point.threshold) != (test_split.label == 1)
    assert len(errors) == min(WORST_ERRORS, wrong.sum())
    probability = np.array([error["probability"] for error in errors])
    confidence = confidence_of(probability, point.threshold).tolist()
    assert confidence == sorted(confidence, reverse=True)
    assert all(error["label"] != error["called"] for error in errors)
    row = test_split.file.index(errors[0]["file"])
    assert wrong[row]
    assert errors[0]["probability"] == test_split.probability[row]


def test_the_promise_and_what_was_kept_are_both_there(judgement, point):
    assert judgement["operating_point"] == point.as_json()
    assert judgement["validation"]["metrics"]["sensitivity"]["value"] == point.sensitivity
    assert judgement["test"]["metrics"]["sensitivity"]["value"] < point.sensitivity


def test_the_order_of_rows_does_not_matter(validation, test_split, judgement, point):
    order = np.random.default_rng(0).permutation(len(test_split))
    again = judged(validation, test_split.select(order), point.threshold, operating_point=point, confidence=QUICK)

    def same(one, other, where=""):
        assert type(one) is type(other), where
        if isinstance(one, dict):
            assert one.keys() == other.keys(), where
            for key in one:
                same(one[key], other[key], f"{where}/{key}")
        elif isinstance(one, list):
            assert len(one) == len(other), where
            for i, pair in enumerate(zip(one, other, strict=True)):
                same(*pair, f"{where}/{i}")
        elif isinstance(one, float):
            assert one == pytest.approx(other, rel=1e-9, abs=1e-12), where
        else:
            assert one == other, where

    same(judgement, again)


def test_a_hundred_times_the_resamples_of_624_images_take_no_more_calls():
    """A loop over them would take minutes."""
    validation = made_up(135, 388, split="val", groups=200, seed=4)
    official = made_up(234, 390, split="test", groups=250, seed=5)
    few, many = Confidence(resamples=20), Confidence(resamples=2000)
    judged(validation, official, 0.5, confidence=few)  # what is loaded once is loaded
    calls = [
        counted_calls(functools.partial(judged, validation, official, 0.5, confidence=told)) for told in (few, many)
    ]
    assert calls[1] < 1.1 * calls[0]


def test_a_measure_can_change_threshold_probability_and_rows(test_split):
    rows = test_split.label == 1
    entries = {
        "plain": measures.Measure(METRICS["sensitivity"]),
        "low": measures.Measure(METRICS["sensitivity"], threshold=0.0),
        "other": measures.Measure(METRICS["sensitivity"], probability=np.zeros(len(test_split))),
        "rows": measures.Measure(METRICS["specificity"], rows=rows),
    }
    results = measures.measure(test_split, 0.5, entries, QUICK)
    assert results["low"].value == 1
    assert results["other"].value == 0
    assert 0.5 < results["plain"].value < 1
    assert results["rows"] == measures.Measured("Specificity", None, "no image is NORMAL", ())


def test_the_rule_has_wider_intervals_than_its_threshold(judgement, validation, test_split, point):
    at_threshold, for_rule = judgement["test"]["metrics"], judgement["for_rule"]
    assert set(for_rule["metrics"]) == set(CALL_METRICS)
    drawn = draw_rule([RuledNetwork(validation, test_split, point)], confidence=QUICK)
    for name, told in for_rule["metrics"].items():
        (interval,) = told["intervals"]
        assert told["value"] == at_threshold[name]["value"]
        expected = np.quantile(drawn.values[name][0], [0.025, 0.975])
        assert [interval["low"], interval["high"]] == pytest.approx(expected)
        assert interval["method"] == "group bootstrap of validation and test"
    for name in ("sensitivity", "specificity", "accuracy"):
        low, high = (for_rule["metrics"][name]["intervals"][0][end] for end in ("low", "high"))
        own = at_threshold[name]["intervals"][0]
        assert high - low > own["high"] - own["low"], name
    assert for_rule["threshold"]["low"] < point.threshold < for_rule["threshold"]["high"]


def test_a_transferred_threshold_is_told_for_its_rule_on_test_alone(judgement):
    for entry in judgement["test"]["specificity_at_sensitivity"]:
        kept = entry["transferred"]
        drawn, own = (
            told["intervals"][0] for told in (kept["for_rule"]["metrics"]["specificity"], kept["specificity"])
        )
        assert drawn["high"] - drawn["low"] > own["high"] - own["low"]
    assert all(e["transferred"]["for_rule"] is None for e in judgement["validation"]["specificity_at_sensitivity"])


def test_every_group_counts_once(judgement, test_split, point):
    called = test_split.probability >= point.threshold
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        groups = {}
        for group, of_class, ill in zip(test_split.group, test_split.label, called, strict=True):
            if of_class == label:
                groups.setdefault(group, []).append(bool(ill) == bool(label))
        told = judgement["test"]["by_group"][name]
        assert told["value"] == pytest.approx(np.mean([np.mean(right) for right in groups.values()]))
        assert told["value"] != judgement["test"]["metrics"][name]["value"]
        assert [interval["method"] for interval in told["intervals"]] == ["Wilson by groups", "group bootstrap"]
    alone = dataclasses.replace(test_split, group=[""] * len(test_split))
    assert judged(None, alone, 0.5, confidence=QUICK)["test"]["by_group"] is None


def test_recalibration_is_told_before_and_after_the_temperature(judgement, test_split, point):
    told = judgement["test"]["calibration"]
    margins, clusters = test_split.logits[:, 1] - test_split.logits[:, 0], test_split.clusters()
    for moment, temperature in (("before", 1.0), ("after", point.temperature)):
        intercept, slope = recalibration(margins / temperature, test_split.label, clusters)
        found = told[moment]["recalibration"]
        assert found["slope"]["value"] == pytest.approx(slope.value)
        assert found["intercept"]["value"] == pytest.approx(intercept.value)
        large = calibration_in_the_large(margins / temperature, test_split.label, clusters)
        assert found["in_the_large"]["value"] == pytest.approx(large.value)
        assert found["in_the_large"]["intervals"][0]["low"] == pytest.approx(large.interval.low)
    # fitted there, a temperature cannot be bettered by a slope through 0
    own = judgement["validation"]["calibration"]
    assert abs(own["after"]["recalibration"]["slope"]["value"] - 1) < abs(
        own["before"]["recalibration"]["slope"]["value"] - 1
    )


def test_progress_is_told_of_every_resample(validation, test_split, point):
    done = []
    judge(validation, test_split, point.threshold, operating_point=point, confidence=QUICK, advance=done.append)
    assert sum(done) == resamples_in_all(QUICK, with_validation=True)
    done.clear()
    judge(None, test_split, 0.5, confidence=QUICK, advance=done.append)
    assert sum(done) == resamples_in_all(QUICK, with_validation=False)
