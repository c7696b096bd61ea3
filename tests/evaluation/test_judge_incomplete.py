"""Judgements where something is missing: validation, groups, a class, errors, or a rule for the threshold."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from cxr_jax.evaluation.intervals import wilson_interval
from cxr_jax.runs.predictions import Predictions
from tests.evaluation.judged_tables import QUICK, judged, made_up


def test_what_is_judged_at_one_half_anyway_is_not_told_twice(test_split):
    assert judged(None, test_split, 0.5, confidence=QUICK)["test"]["at_one_half"] is None


def test_without_validation_nothing_is_promised(test_split):
    judgement = judged(None, test_split, 0.5, confidence=QUICK)
    assert judgement["validation"] is None
    assert judgement["operating_point"]["validation"] == {"images": 0, "sensitivity": None, "specificity": None}
    assert judgement["test"]["calibration"]["after"] is None
    assert all(entry["transferred"] is None for entry in judgement["test"]["specificity_at_sensitivity"])
    assert any("no validation predictions" in warning for warning in judgement["warnings"])


def test_a_fixed_threshold_gets_promise_and_temperature_from_validation(validation, test_split, point, metric_values):
    judgement = judged(validation, test_split, 0.5, confidence=QUICK)
    stated = judgement["operating_point"]
    assert stated["rule"] == "fixed"
    assert stated["temperature"] == point.temperature
    expected = metric_values(validation.label, validation.probability, 0.5)
    assert stated["validation"]["specificity"] == expected["specificity"]


def test_a_threshold_beside_another_operating_point_is_a_bug(validation, test_split, point):
    with pytest.raises(ValueError, match="is not the operating point's"):
        judged(validation, test_split, 0.123, operating_point=point)


def columns(predictions):
    return {entry.name: getattr(predictions, entry.name) for entry in dataclasses.fields(Predictions)}


def test_a_foreign_table_without_groups_and_subtypes_is_judged_and_warned_about(test_split):
    count = len(test_split)
    subtype = tuple("unknown" if positive else "normal" for positive in test_split.label)
    foreign = Predictions(**{**columns(test_split), "group": ("",) * count, "subtype": subtype, "logits": None})
    judgement = judged(None, foreign, 0.5, confidence=QUICK)
    assert judgement["test"]["groups"] is None
    assert list(judgement["test"]["by_subtype"]) == ["unknown"]
    methods = [interval["method"] for interval in judgement["test"]["metrics"]["roc_auc"]["intervals"]]
    assert methods == ["DeLong, logit", "bootstrap"]
    assert any("has a group" in warning for warning in judgement["warnings"])


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_gives_reasons_in_place_of_numbers(test_split, label):
    one_class = test_split.select(test_split.label == label)
    judgement = judged(None, one_class, 0.5, confidence=QUICK)
    json.dumps(judgement, allow_nan=False)
    metrics = judgement["test"]["metrics"]
    assert metrics["roc_auc"] == {
        "title": "ROC-AUC",
        "value": None,
        "undefined": "the images are of one class only",
        "intervals": [],
    }
    missing = {0: "sensitivity", 1: "specificity"}[label]
    assert metrics[missing]["value"] is None
    assert metrics["accuracy"]["value"] is not None
    assert any("Only 0 test images" in warning for warning in judgement["warnings"])


def test_a_validation_split_without_pneumonia_transfers_no_threshold(validation, test_split):
    normals = validation.select(validation.label == 0)
    judgement = judged(normals, test_split, 0.5, confidence=QUICK)
    assert all(entry["transferred"] is None for entry in judgement["test"]["specificity_at_sensitivity"])


def test_images_and_groups_in_both_splits_are_told(validation, test_split):
    leaked = Predictions(**{**columns(test_split), "group": (validation.group[0], *test_split.group[1:])})
    warnings = judged(validation, leaked, 0.5, confidence=QUICK)["warnings"]
    assert any(warning.startswith("1 groups") for warning in warnings)
    warnings = judged(test_split, test_split, 0.5, confidence=QUICK)["warnings"]
    assert any(warning.startswith("240 images are in validation and in test") for warning in warnings)


def test_the_official_validation_of_sixteen_images_is_warned_about(test_split):
    tiny = made_up(8, 8, split="val", groups=8, seed=3)
    warnings = judged(tiny, test_split, 0.5, confidence=QUICK)["warnings"]
    assert [warning for warning in warnings if "Only 8 validation images are NORMAL" in warning]


def test_a_sensitivity_of_one_has_an_interval_that_counts_groups_and_no_empty_bootstrap(test_split):
    judgement = judged(None, test_split, 0.0, confidence=QUICK)
    sensitivity = judgement["test"]["metrics"]["sensitivity"]
    assert sensitivity["value"] == 1
    by_group, by_image = sensitivity["intervals"]
    assert (by_group["method"], by_image["method"]) == ("Wilson by groups", "Wilson")
    ill = np.flatnonzero(test_split.label == 1)
    sizes = np.array(list(Counter(test_split.group[row] for row in ill).values()))
    groups = len(ill) ** 2 / np.sum(sizes**2)
    assert groups < len(sizes) < len(ill)
    assert by_group["low"] == pytest.approx(wilson_interval(groups, groups).low)
    assert by_image["low"] == wilson_interval(len(ill), len(ill)).low
    assert by_group["low"] < by_image["low"] and by_group["high"] == pytest.approx(1)


def test_a_sensitivity_of_one_without_groups_has_wilsons_interval_alone(test_split):
    alone = dataclasses.replace(test_split, group=[""] * len(test_split))
    sensitivity = judged(None, alone, 0.0, confidence=QUICK)["test"]["metrics"]["sensitivity"]
    assert [interval["method"] for interval in sensitivity["intervals"]] == ["Wilson"]


def test_groups_of_a_subtype_are_counted_among_its_images(test_split):
    virus = judged(None, test_split, 0.0, confidence=QUICK)["test"]["by_subtype"]["virus"]["sensitivity"]
    of_virus = zip(test_split.group, test_split.subtype, strict=True)
    sizes = np.array(list(Counter(group for group, kind in of_virus if kind == "virus").values()))
    groups = sizes.sum() ** 2 / np.sum(sizes**2)
    assert virus["intervals"][0]["low"] == pytest.approx(wilson_interval(groups, groups).low)


def test_a_threshold_fixed_beforehand_is_no_estimate(validation, test_split):
    fixed = judged(validation, test_split, 0.5, confidence=QUICK)
    assert fixed["for_rule"] is None
    # the targets of the report are rules all the same
    kept = fixed["test"]["specificity_at_sensitivity"][0]["transferred"]
    assert kept["for_rule"]["metrics"]["specificity"]["value"] == kept["specificity"]["value"]
    assert judged(None, test_split, 0.5, confidence=QUICK)["for_rule"] is None


def test_classes_without_overlap_are_not_recalibrated_and_the_reason_is_told(test_split):
    sure = dataclasses.replace(test_split, logits=None, probability=np.where(test_split.label == 1, 0.9, 0.2))
    told = judged(None, sure, 0.5, confidence=QUICK)["test"]["calibration"]["before"]["recalibration"]
    assert told["slope"]["value"] is None
    assert "separate the classes without error" in told["slope"]["undefined"]
    assert told["in_the_large"]["value"] is not None
