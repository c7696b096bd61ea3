"""The numbers of a judgement as the report tells them."""

import json
import re

import pytest

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge import judge
from cxr_jax.reporting.report import render_report
from cxr_jax.runs.files import write_json, write_text
from tests.reporting.report_page import Page


def test_a_call_is_valued_at_the_prevalence_that_the_config_declares(whole):
    def rows():
        text = Page(render_report(whole)).text
        return text[text.index("Pneumonia in") : text.index("Whose radiographs these are")]

    assert "declared by the config" not in rows()
    write_text(whole.config, whole.config.read_text() + "[report]\nprevalence = 0.03\n")
    page = render_report(whole)
    assert "3.0% declared by the config" in rows()
    assert "Of 1,000 radiographs, 30 show pneumonia" in Page(page).text
    assert 'id="prevalence" type="number"' in page and 'value="3"' in page


def test_calls_at_one_half_stand_beside_those_at_the_threshold(whole, example):
    text = Page(render_report(whole)).text
    test = example.judgement["test"]
    half = test["at_one_half"]
    for title, row, column in (("True negatives", 0, 0), ("False positives", 0, 1), ("False negatives", 1, 0)):
        counts = [judged["confusion"][row][column] for judged in (test, half, example.judgement["validation"])]
        assert re.search(rf"{title} \S+ called \S+ {counts[0]} +{counts[1]} {counts[2]} ", text)
    accuracy = half["metrics"]["accuracy"]
    assert f"Test threshold {example.point.threshold:.4g} Test for this rule Test threshold 0.5 Validation" in text
    assert f"{accuracy['value']:.3f} ({accuracy['intervals'][0]['low']:.3f}–" in text
    judgement = json.loads(json.dumps(example.judgement))
    for judged in (judgement["test"], judgement["validation"]):
        del judged["at_one_half"]
    write_json(whole.evaluation, judgement)
    assert "threshold 0.5" not in Page(render_report(whole)).text


def test_calibration_is_told_on_both_splits_before_and_after(whole, example):
    text = Page(render_report(whole)).text.split("Calibration", 2)[2].split("Subgroups")[0]
    for split in ("validation", "test"):
        for moment in ("before", "after"):
            calibration = example.judgement[split]["calibration"][moment]
            for measured in (calibration["log_loss"], *calibration["errors"]):
                assert f"{measured['value']:.3f} (" in text


def test_the_numbers_are_those_of_the_judgement(whole, example):
    text = Page(render_report(whole)).text
    test = example.judgement["test"]
    assert f"Right calls (accuracy) {test['metrics']['accuracy']['value']:.1%}" in text
    auc = test["metrics"]["roc_auc"]
    assert (
        f"Ranking (ROC-AUC) {auc['value']:.3f} {auc['intervals'][0]['low']:.3f} to {auc['intervals'][0]['high']:.3f}"
        in text
    )
    for measured in test["metrics"].values():
        ends = measured["intervals"][0]
        assert f"{measured['title']} {measured['value']:.3f} ({ends['low']:.3f}–{ends['high']:.3f})" in text
    assert f"Sensitivity {example.point.sensitivity:.3f} {test['metrics']['sensitivity']['value']:.3f}" in text
    assert f"The threshold is {example.point.threshold:.4g}" in text
    assert "(95.0%)" in text
    assert f"temperature of {example.point.temperature:.3f}" in text
    assert "Obuchowski for ROC-AUC" in text


def test_the_fall_from_validation_to_test_is_told_in_its_parts(bare, example):
    text = Page(render_report(bare)).text
    drop, prior = example.judgement["shift"]["drop"], example.judgement["shift"]["prior"]
    assert f"Balanced accuracy is {drop['validation']:.3f} on validation and {drop['test']:.3f} on test" in text
    ranking, point = (f"{-drop[name]:+.3f}".replace("-", "−") for name in ("ranking", "operating_point"))
    assert f"{ranking} because the classes are ranked otherwise" in text
    assert f"{point} because the threshold sits otherwise" in text
    assert f"from {prior['before']['accuracy']:.3f} to {prior['after']['accuracy']:.3f}" in text
    moved = example.judgement["shift"]["scores"]["NORMAL"]
    assert f"NORMAL {moved['higher_on_test']:.3f} ({moved['interval']['low']:.3f}" in text


@pytest.mark.parametrize("label", [0, 1])
def test_undefined_values_are_explained(bare, example, label):
    one_class = example.test.select(example.test.label == label)
    write_json(bare.evaluation, judge(None, one_class, 0.5, confidence=Confidence(resamples=20)).as_json())
    text = Page(render_report(bare)).text
    assert "ROC-AUC undefined the images are of one class only" in text
    assert "No temperature could be fitted" in text
    assert ("There is no PNEUMONIA image." in text) == (label == 0)


def test_without_errors_it_says_so(bare, example):
    right = example.test.select(example.test.label == 1)
    write_json(bare.evaluation, judge(None, right, 0.0, confidence=Confidence(resamples=20)).as_json())
    assert "Every test image was called what it is." in Page(render_report(bare)).text


@pytest.mark.parametrize(
    ("rule", "parameters", "told"),
    [
        ("fixed", {"threshold": 0.5}, "fixed beforehand"),
        ("youden", {}, "largest sum of sensitivity and specificity"),
        ("cost_ratio", {"cost_ratio": 5.0}, "a missed pneumonia counting as 5 false alarms"),
    ],
)
def test_every_rule_is_told_in_words(bare, example, rule, parameters, told):
    point = {**example.judgement["operating_point"], "rule": rule, "parameters": parameters}
    write_json(bare.evaluation, {**example.judgement, "operating_point": point})
    assert told in Page(render_report(bare)).text


def test_what_holds_for_the_threshold_and_for_its_rule_stand_side_by_side(whole, example):
    text = Page(render_report(whole)).text
    test, found = example.judgement["test"]["metrics"], example.judgement["for_rule"]
    for name in ("sensitivity", "specificity", "accuracy"):
        own, ruled = (told["intervals"][0] for told in (test[name], found["metrics"][name]))
        assert (
            f"for this threshold: {own['low']:.1%} to {own['high']:.1%} "
            f"for this rule: {ruled['low']:.1%} to {ruled['high']:.1%}"
        ) in re.sub(r"\s+", " ", text)
        assert f"{own['high']:.3f}) ({ruled['low']:.3f}–{ruled['high']:.3f})" in re.sub(r"\s+", " ", text)
    low, high = found["threshold"]["low"], found["threshold"]["high"]
    assert f"the same rule would put it between {low:.4g} and {high:.4g} (95 % of draws)" in text
    assert "anywhere from" in text.split("What it can be used for")[0]
    for entry in example.judgement["test"]["specificity_at_sensitivity"]:
        ruled = entry["transferred"]["for_rule"]["metrics"]["specificity"]["intervals"][0]
        assert f"rule ({ruled['low']:.3f}–{ruled['high']:.3f})" in text


def test_slope_intercept_and_shift_are_told_on_both_splits_before_and_after(whole, example):
    text = Page(render_report(whole)).text.split("Calibration", 2)[2].split("Subgroups")[0]
    for split in ("validation", "test"):
        for moment in ("before", "after"):
            for measured in example.judgement[split]["calibration"][moment]["recalibration"].values():
                ends = measured["intervals"][0]
                told = f"{measured['value']:.3f} ({ends['low']:.3f}–{ends['high']:.3f})"
                assert told.replace("-", "−") in text


def test_rates_with_every_group_counting_once_stand_with_the_subgroups(whole, example):
    text = Page(render_report(whole)).text.split("Subgroups", 2)[2]
    for split in ("test", "validation"):
        for measured in example.judgement[split]["by_group"].values():
            ends = measured["intervals"][0]
            assert f"{measured['value']:.3f} ({ends['low']:.3f}–{ends['high']:.3f})" in text


def test_an_evaluation_of_an_earlier_version_gives_a_report_without_what_it_lacks(whole, example):
    older = json.loads(json.dumps(example.judgement))
    older["schema_version"] = 1
    del older["for_rule"]
    for split in ("test", "validation"):
        del older[split]["by_group"]
        for moment in ("before", "after"):
            del older[split]["calibration"][moment]["recalibration"]
        for entry in older[split]["specificity_at_sensitivity"]:
            del entry["transferred"]["for_rule"]
    write_json(whole.evaluation, older)
    text = Page(render_report(whole)).text.split("Glossary")[1]
    for word in ("for this rule", "Calibration slope", "Calibration in the large", "counts once", "same rule"):
        assert word not in text
    assert f"Right calls (accuracy) {older['test']['metrics']['accuracy']['value']:.1%}" in text
