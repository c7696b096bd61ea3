"""The judgement of findings that occur together, some of them unknown, against scikit-learn and in what it promises."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from cxr_jax.evaluation.class_judgement import read_class_judgement
from cxr_jax.evaluation.class_points import (
    against_the_rest,
    choose_class_points,
    fixed_class_points,
    read_class_points,
    write_class_points,
)
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.finding_cases import FINDING_METRICS, FindingCases
from cxr_jax.evaluation.judge_classes import class_resamples_in_all, judge_classes
from cxr_jax.evaluation.judgement import write_judgement
from cxr_jax.evaluation.measures import Measured
from cxr_jax.runs.finding_predictions import FindingPredictions

NAMES = ("Effusion", "Mass", "Hernia")
SHARES = (0.4, 0.25, 0.15)
QUICK = Confidence(resamples=200)
THRESHOLDS = dict(zip(NAMES, (0.4, 0.5, 0.3), strict=True))


def predictions(count=160, *, seed=0, split="test", groups=True, skill=1.5, unknown=0.15):
    random = np.random.default_rng(seed)
    label = (random.random((count, 3)) < SHARES).astype(float)
    logits = random.normal(size=label.shape) + skill * label - 1
    label[random.random(label.shape) < unknown] = np.nan
    return FindingPredictions.from_logits(
        logits,
        file=[f"{split}{i}" for i in range(count)],
        split=[split] * count,
        group=[f"{split} {i // 2}" if groups else "" for i in range(count)],
        classes=NAMES,
        label=label,
    )


def points_of(thresholds=THRESHOLDS):
    points = fixed_class_points(NAMES, 0.5)
    return dataclasses.replace(
        points,
        classes={name: dataclasses.replace(points.classes[name], threshold=thresholds[name]) for name in NAMES},
    )


def known_of(table, index):
    rows = ~np.isnan(table.label[:, index])
    return table.label[rows, index].astype(int), table.probabilities[rows, index]


@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_that_of_scikit_learn_on_the_known_labels(seed):
    table = predictions(seed=seed)
    judged = judge_classes(None, table, points_of(), confidence=QUICK).test
    columns = [known_of(table, index) for index in range(3)]
    called = [p >= THRESHOLDS[name] for name, (_, p) in zip(NAMES, columns, strict=True)]
    truth, p, calls = (np.concatenate(parts) for parts in (*zip(*columns, strict=True), called))
    each = {
        "roc_auc": [sk.roc_auc_score(*column) for column in columns],
        "average_precision": [sk.average_precision_score(*column) for column in columns],
        "sensitivity": [sk.recall_score(label, call) for (label, _), call in zip(columns, called, strict=True)],
        "specificity": [
            sk.recall_score(label, call, pos_label=0) for (label, _), call in zip(columns, called, strict=True)
        ],
        "f1": [sk.f1_score(label, call) for (label, _), call in zip(columns, called, strict=True)],
        "precision": [sk.precision_score(label, call) for (label, _), call in zip(columns, called, strict=True)],
    }
    expected = {
        **{f"macro_{name}": np.mean(values) for name, values in each.items() if name != "precision"},
        "micro_roc_auc": sk.roc_auc_score(truth, p),
        "micro_average_precision": sk.average_precision_score(truth, p),
        "micro_f1": sk.f1_score(truth, calls),
        "accuracy": sk.accuracy_score(truth, calls),
        "brier": sk.brier_score_loss(truth, p),
        "log_loss": sk.log_loss(truth, p),
    }
    assert set(expected) == set(FINDING_METRICS)
    assert {name: measured.value for name, measured in judged.metrics.items()} == pytest.approx(expected, abs=1e-12)
    for index, name in enumerate(NAMES):
        one = judged.classes[name]
        assert (one.images, one.unknown) == (columns[index][0].sum(), 160 - len(columns[index][0]))
        for metric in ("roc_auc", "average_precision"):
            assert one.metrics[metric].value == pytest.approx(each[metric][index], abs=1e-12)
        for metric in ("sensitivity", "specificity", "precision", "f1"):
            assert one.at_threshold[metric].value == pytest.approx(each[metric][index], abs=1e-12)
        assert one.calibration.before.brier.value == pytest.approx(sk.brier_score_loss(*columns[index]))
        assert one.called == {}
    assert judged.confusion == ()


def values_of(cases):
    return {name: metric.function(cases) for name, metric in FINDING_METRICS.items()}


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_what_is_predicted_where_nobody_knows_does_not_matter(seed):
    table, random = predictions(40, seed=seed), np.random.default_rng(seed)
    other = np.where(np.isnan(table.label), random.random(table.label.shape), table.probabilities)
    changed = dataclasses.replace(table, logits=None, probabilities=other)
    for name, value in values_of(FindingCases.unweighted(changed, THRESHOLDS)).items():
        expected = FINDING_METRICS[name].function(FindingCases.unweighted(table, THRESHOLDS))
        assert value == pytest.approx(expected, nan_ok=True), name


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_an_image_of_weight_two_is_as_two_images(seed):
    table = predictions(30, seed=seed)
    counts = np.random.default_rng(seed).integers(0, 3, len(table))
    rows = np.repeat(np.arange(len(table)), counts)
    whole = FindingCases.unweighted(table, THRESHOLDS)
    weighted = dataclasses.replace(whole, weights=np.array([np.ones(len(table)), counts], float))
    repeated = dataclasses.replace(
        whole, label=table.label[rows], probabilities=table.probabilities[rows], weights=np.ones((1, len(rows)))
    )
    # which findings a mean is over is told by the images, not by their weights
    if len(repeated.ranked) < len(whole.ranked):
        return
    for name, metric in FINDING_METRICS.items():
        assert metric.function(weighted)[1] == pytest.approx(metric.function(repeated)[0], nan_ok=True, abs=1e-12), name


@given(st.integers(0, 1000), st.permutations(range(3)))
@settings(max_examples=20)
def test_the_order_of_findings_and_of_images_does_not_matter(seed, order):
    table, order = predictions(40, seed=seed), list(order)
    rows = np.random.default_rng(seed).permutation(40)
    whole = FindingCases.unweighted(table, THRESHOLDS)
    moved = dataclasses.replace(
        whole,
        label=whole.label[rows][:, order],
        probabilities=whole.probabilities[rows][:, order],
        thresholds=whole.thresholds[order],
    )
    for name, value in values_of(moved).items():
        assert value == pytest.approx(FINDING_METRICS[name].function(whole), nan_ok=True, abs=1e-12), name


def measured_in(value):
    if isinstance(value, Measured):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from measured_in(getattr(value, field.name))
    elif isinstance(value, dict | tuple | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from measured_in(entry)


def test_every_figure_has_an_interval_over_groups_and_all_resamples_are_told():
    validation, test = predictions(300, seed=1, split="val"), predictions(300)
    told = []
    points = choose_class_points(validation, rule="sensitivity", target_sensitivity=0.8)
    judgement = judge_classes(validation, test, points, confidence=QUICK, advance=told.append)
    assert sum(told) == class_resamples_in_all(QUICK, 3, with_validation=True)
    found = list(measured_in(judgement.test))
    assert len(found) > 60
    for measured in found:
        assert "group" in measured.interval.method or measured.interval.method.startswith("Obuchowski"), measured
        assert measured.interval.low <= measured.value <= measured.interval.high


def test_intervals_are_over_groups_not_images():
    table = predictions(120, unknown=0.1)
    twice = FindingPredictions.from_logits(
        np.repeat(table.logits, 2, axis=0),
        file=[f"{file} {copy}" for file in table.file for copy in "ab"],
        split=["test"] * 240,
        group=[file for file in table.file for _ in "ab"],
        classes=NAMES,
        label=np.repeat(table.label, 2, axis=0),
    )
    alone = dataclasses.replace(twice, group=("",) * 240)
    grouped, images = (judge_classes(None, each, points_of(), confidence=QUICK).test for each in (twice, alone))
    for name in ("macro_roc_auc", "micro_f1", "log_loss"):
        widths = [m.metrics[name].interval.high - m.metrics[name].interval.low for m in (grouped, images)]
        assert widths[0] > 1.2 * widths[1], name
    assert "Not every image has a group" in " ".join(judge_classes(None, alone, points_of(), confidence=QUICK).warnings)


def test_a_threshold_keeps_its_promise_for_every_finding_and_each_has_a_temperature():
    validation = predictions(seed=1, split="val")
    points = choose_class_points(validation, rule="sensitivity", target_sensitivity=0.8)
    assert points.temperature is None
    for index, name in enumerate(NAMES):
        label, probability = known_of(validation, index)
        threshold = points.classes[name].threshold
        assert np.mean(probability[label == 1] >= threshold) >= 0.8
        assert np.mean(probability[label == 1] >= np.nextafter(threshold, 1)) < 0.8
        assert points.classes[name].images == len(label)
        assert points.classes[name].temperature > 0
    judged = judge_classes(validation, predictions(), points, confidence=QUICK).validation.classes
    for one in judged.values():
        assert one.calibration.after.log_loss.value <= one.calibration.before.log_loss.value + 1e-12


def test_a_finding_that_validation_lacks_has_the_fixed_threshold_and_the_reader_is_told():
    validation, test = predictions(seed=1, split="val"), predictions()
    label = validation.label.copy()
    label[label[:, 1] == 1, 1] = 0
    label[:, 2] = np.nan
    lacking = dataclasses.replace(validation, label=label)
    points = choose_class_points(lacking, rule="youden")
    assert [points.classes[name].rule for name in NAMES] == ["youden", "fixed", "fixed"]
    assert (points.classes["Mass"].threshold, points.classes["Hernia"].images) == (0.5, 0)
    judgement = judge_classes(lacking, test, points, confidence=QUICK)
    assert tuple(judgement.validation.classes) == ("Effusion", "Mass")
    assert tuple(judgement.test.classes) == judgement.classes == NAMES
    told = " ".join(judgement.warnings)
    assert "No threshold could be chosen on validation for Mass, Hernia" in told
    assert "Few validation images show Mass (0), Hernia (0)" in told


def test_means_leave_out_what_cannot_be_ranked_and_say_so():
    test = predictions()
    label = test.label.copy()
    label[:, 2] = np.where(np.isnan(label[:, 2]), np.nan, 0)
    never = dataclasses.replace(test, label=label)
    judgement = judge_classes(None, never, points_of(), confidence=QUICK)
    areas = [judgement.test.classes[name].metrics["roc_auc"].value for name in NAMES]
    assert areas[2] is None
    assert judgement.test.classes["Hernia"].metrics["roc_auc"].undefined == "no image shows Hernia, or every one"
    assert judgement.test.classes["Hernia"].at_threshold["sensitivity"].undefined == "no image shows Hernia"
    assert judgement.test.metrics["macro_roc_auc"].value == pytest.approx(np.mean(areas[:2]))
    assert (
        "Means over findings are over 2 of 3: on test the known labels of Hernia are all alike, or none is known."
        in " ".join(judgement.warnings)
    )
    nothing = dataclasses.replace(test, label=np.where(np.isnan(label), np.nan, 0))
    undefined = judge_classes(None, nothing, points_of(), confidence=QUICK).test.metrics["macro_roc_auc"]
    assert undefined.undefined == "no finding is both present and absent"


def test_the_rows_of_one_finding_are_those_of_which_it_is_known():
    table = predictions()
    alone = against_the_rest(table, "Mass")
    rows = ~np.isnan(table.label[:, 1])
    assert alone.file == tuple(file for file, known in zip(table.file, rows, strict=True) if known)
    assert np.array_equal(alone.label, table.label[rows, 1])
    assert np.array_equal(alone.probability, table.probabilities[rows, 1])


def test_the_worst_errors_are_the_furthest_from_their_thresholds():
    test = predictions()
    errors = judge_classes(None, test, points_of(), confidence=QUICK).test.worst_errors
    assert len(errors) == 24
    by_file = {file: row for row, file in enumerate(test.file)}
    for error in errors:
        name = error.label.removeprefix("no ")
        index, row = NAMES.index(name), by_file[error.file]
        assert error.probability == test.probabilities[row, index]
        shown, called = test.label[row, index] == 1, error.probability >= THRESHOLDS[name]
        assert (error.label, error.called) == ((name, f"no {name}") if shown else (f"no {name}", name))
        assert shown != called


def test_the_records_read_back(tmp_path):
    validation, test = predictions(seed=1, split="val"), predictions()
    points = choose_class_points(validation, rule="youden")
    judgement = judge_classes(validation, test, points, confidence=QUICK)
    write_judgement(tmp_path / "evaluation.json", judgement)
    assert read_class_judgement(tmp_path / "evaluation.json") == judgement
    assert judgement.of_findings
    write_class_points(tmp_path / "operating_point.json", points)
    assert read_class_points(tmp_path / "operating_point.json") == points


def test_predictions_of_other_findings_are_not_judged_together():
    test = predictions()
    with pytest.raises(ValueError, match="different classes"):
        judge_classes(None, test, fixed_class_points(("a", "b"), 0.5))
