"""The judgement of K classes against scikit-learn, against the judgement of two, and in what it promises."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from cxr_jax.errors import UserError
from cxr_jax.evaluation.calibration import fit_temperature
from cxr_jax.evaluation.class_cases import ClassCases
from cxr_jax.evaluation.class_judgement import read_class_judgement
from cxr_jax.evaluation.class_metrics import CLASS_METRICS
from cxr_jax.evaluation.class_points import (
    choose_class_points,
    fit_class_temperature,
    fixed_class_points,
    read_class_points,
    write_class_points,
)
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge_classes import class_resamples_in_all, judge_classes
from cxr_jax.evaluation.judgement import read_judgement, write_judgement
from cxr_jax.evaluation.measures import Measured
from cxr_jax.runs.class_predictions import ClassPredictions

NAMES = ("normal", "bacteria", "virus")
QUICK = Confidence(resamples=200)


def predictions(count=150, classes=NAMES, *, seed=0, split="test", groups=True, skill=1.0):
    random = np.random.default_rng(seed)
    label = random.permutation(np.arange(count) % len(classes))
    logits = random.normal(size=(count, len(classes))) + skill * np.eye(len(classes))[label]
    return ClassPredictions.from_logits(
        logits,
        file=[f"{split}{i}" for i in range(count)],
        split=[split] * count,
        group=[f"{split} {i // 2}" if groups else "" for i in range(count)],
        classes=classes,
        label=label,
    )


@pytest.mark.parametrize("classes", [NAMES, ("a", "b"), ("a", "b", "c", "d", "e")])
@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_that_of_scikit_learn(classes, seed):
    table = predictions(120, classes, seed=seed)
    truth, p, called = table.label, table.probabilities, table.called
    onehot = np.eye(len(classes))[truth]
    expected = {
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "macro_f1": sk.f1_score(truth, called, average="macro"),
        "matthews_correlation": sk.matthews_corrcoef(truth, called),
        "macro_roc_auc": sk.roc_auc_score(onehot, p, average="macro"),
        "micro_roc_auc": sk.roc_auc_score(onehot, p, average="micro"),
        "macro_average_precision": sk.average_precision_score(onehot, p, average="macro"),
        "micro_average_precision": sk.average_precision_score(onehot, p, average="micro"),
        "log_loss": sk.log_loss(truth, p),
        "brier": np.mean(np.sum((p - onehot) ** 2, axis=1)),
    }
    judged = judge_classes(None, table, fixed_class_points(classes, 0.5), confidence=Confidence(resamples=2)).test
    found = {name: judged.metrics[name].value for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert set(judged.metrics) - set(expected) == {"calibration_error"}
    assert np.array_equal(judged.confusion, sk.confusion_matrix(truth, called))
    for index, name in enumerate(classes):
        one = judged.classes[name]
        assert one.images == np.sum(truth == index)
        assert one.metrics["roc_auc"].value == pytest.approx(sk.roc_auc_score(truth == index, p[:, index]), abs=1e-12)
        area = sk.average_precision_score(truth == index, p[:, index])
        assert one.metrics["average_precision"].value == pytest.approx(area, abs=1e-12)
        told = sk.precision_recall_fscore_support(truth == index, called == index, average="binary")
        found = [one.called[metric].value for metric in ("precision", "sensitivity", "f1")]
        assert found == pytest.approx(told[:3], abs=1e-12)
        recall = sk.recall_score(truth == index, p[:, index] >= 0.5)
        assert one.at_threshold["sensitivity"].value == pytest.approx(recall, abs=1e-12)
        assert one.calibration.before.brier.value == pytest.approx(np.mean((p[:, index] - (truth == index)) ** 2))


def test_the_calibration_error_is_that_of_the_probability_of_the_call():
    table = predictions()
    confidence, right = table.probabilities.max(axis=1), table.called == table.label
    bins = np.ceil(confidence * 15).astype(int)
    gaps = [abs(np.sum((confidence - right)[bins == number])) for number in np.unique(bins)]
    judged = judge_classes(None, table, fixed_class_points(NAMES, 0.5), confidence=QUICK).test
    assert judged.metrics["calibration_error"].value == pytest.approx(sum(gaps) / len(table))


def weighted(table, weights):
    return ClassCases(table.label, table.probabilities, np.asarray(weights, float))


@given(st.integers(0, 1000), st.integers(2, 5))
@settings(max_examples=25)
def test_an_image_of_weight_two_is_as_two_images(seed, classes):
    table = predictions(30, tuple("abcde"[:classes]), seed=seed)
    counts = np.random.default_rng(seed).integers(0, 3, len(table))
    rows = np.repeat(np.arange(len(table)), counts)
    repeated = ClassCases(table.label[rows], table.probabilities[rows], np.ones((1, len(rows))))
    for metric in CLASS_METRICS.values():
        found = metric.function(weighted(table, [np.ones(len(table)), counts]))[1]
        assert found == pytest.approx(metric.function(repeated)[0], nan_ok=True, abs=1e-12)


@given(st.integers(0, 1000), st.permutations(range(3)))
@settings(max_examples=20)
def test_the_order_of_the_classes_does_not_matter(seed, order):
    table, order = predictions(40, seed=seed), list(order)
    moved = ClassCases(np.argsort(order)[table.label], table.probabilities[:, order], np.ones((1, len(table))))
    for metric in CLASS_METRICS.values():
        expected = metric.function(ClassCases.unweighted(table))[0]
        assert metric.function(moved)[0] == pytest.approx(expected, nan_ok=True, abs=1e-12)


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
    validation, test = predictions(seed=1, split="val"), predictions()
    told = []
    points = choose_class_points(validation, rule="sensitivity", target_sensitivity=0.8)
    judgement = judge_classes(validation, test, points, confidence=QUICK, advance=told.append)
    assert sum(told) == class_resamples_in_all(QUICK, 3, with_validation=True)
    found = list(measured_in(judgement.test))
    assert len(found) > 60
    for measured in found:
        assert "group" in measured.interval.method or measured.interval.method.startswith("Obuchowski"), measured
        assert measured.interval.low <= measured.value <= measured.interval.high


def test_intervals_are_wider_where_images_of_a_group_are_alike():
    table = predictions(120)
    twice = ClassPredictions.from_logits(
        np.repeat(table.logits, 2, axis=0),
        file=[f"{file} {copy}" for file in table.file for copy in "ab"],
        split=["test"] * 240,
        group=[file for file in table.file for _ in "ab"],
        classes=NAMES,
        label=np.repeat(table.label, 2),
    )
    alone = dataclasses.replace(twice, group=("",) * 240)
    points = fixed_class_points(NAMES, 0.5)
    grouped, images = (judge_classes(None, each, points, confidence=QUICK).test.metrics for each in (twice, alone))
    for name in ("accuracy", "macro_roc_auc", "log_loss"):
        width = [m[name].interval.high - m[name].interval.low for m in (grouped, images)]
        assert width[0] > 1.2 * width[1]


def test_a_threshold_keeps_its_promise_for_every_class():
    validation = predictions(seed=1, split="val")
    points = choose_class_points(validation, rule="sensitivity", target_sensitivity=0.8)
    for index, name in enumerate(NAMES):
        of_class = validation.probabilities[validation.label == index, index]
        assert np.mean(of_class >= points.classes[name].threshold) >= 0.8
        higher = np.nextafter(points.classes[name].threshold, 1)
        assert np.mean(of_class >= higher) < 0.8
        assert points.classes[name].images == len(validation)


def test_a_rule_needs_every_class_on_validation():
    validation = predictions(seed=1, split="val")
    lacking = validation.select(validation.label != 1)
    with pytest.raises(UserError, match="threshold for bacteria: no validation image is bacteria"):
        choose_class_points(lacking, rule="youden")
    assert choose_class_points(lacking, rule="fixed", threshold=0.3).classes["bacteria"].threshold == 0.3


def test_the_temperature_of_two_classes_is_that_of_their_difference():
    table = predictions(200, ("a", "b"), skill=2.0)
    expected = fit_temperature(table.logits[:, 1] - table.logits[:, 0], table.label)
    assert fit_class_temperature(table.logits, table.label) == pytest.approx(expected)


def test_the_temperature_is_the_best_there_is():
    table = predictions(200)
    best = fit_class_temperature(4 * table.logits, table.label)
    losses = [
        sk.log_loss(table.label, table.with_logits(4 * table.logits / t).probabilities)
        for t in (0.98 * best, best, 1.02 * best)
    ]
    assert losses[1] < min(losses[0], losses[2])
    # separated without error, and no better than chance
    assert fit_class_temperature(np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])) is None
    assert fit_class_temperature(np.eye(3)[[1, 2, 0]], np.array([0, 1, 2])) is None


def test_temperature_mends_log_loss_of_validation():
    validation = predictions(seed=1, split="val").with_logits(5 * predictions(seed=1).logits)
    points = choose_class_points(validation, rule="fixed", threshold=0.5)
    judged = judge_classes(validation, predictions(), points, confidence=QUICK).validation
    assert judged.calibrated["log_loss"].value < judged.metrics["log_loss"].value
    assert judged.calibrated["calibration_error"].value < judged.metrics["calibration_error"].value


def test_the_record_reads_back_and_no_reader_of_two_classes_takes_it(tmp_path):
    validation, test = predictions(seed=1, split="val"), predictions()
    points = choose_class_points(validation, rule="youden")
    judgement = judge_classes(validation, test, points, confidence=QUICK)
    write_judgement(tmp_path / "evaluation.json", judgement)
    assert read_class_judgement(tmp_path / "evaluation.json") == judgement
    assert json.loads((tmp_path / "evaluation.json").read_text())["kind"] == "classes"
    with pytest.raises(UserError, match="judges other classes than NORMAL and PNEUMONIA"):
        read_judgement(tmp_path / "evaluation.json")
    write_class_points(tmp_path / "operating_point.json", points)
    assert read_class_points(tmp_path / "operating_point.json") == points


def test_the_worst_errors_come_first():
    test = predictions()
    errors = judge_classes(None, test, fixed_class_points(NAMES, 0.5), confidence=QUICK).test.worst_errors
    assert [error.probability for error in errors] == sorted((e.probability for e in errors), reverse=True)
    assert all(error.called != error.label for error in errors)
    wrong = test.called != test.label
    assert errors[0].probability == pytest.approx(test.probabilities[wrong].max())


def test_what_cannot_be_known_is_said():
    test = predictions(groups=False)
    lacking = test.select(test.label != 2)
    judgement = judge_classes(None, lacking, fixed_class_points(NAMES, 0.5), confidence=QUICK)
    assert judgement.test.metrics["macro_roc_auc"].undefined == "a class has no image"
    assert judgement.test.classes["virus"].metrics["roc_auc"].undefined == "no image is virus, or every one"
    assert judgement.test.classes["virus"].called["sensitivity"].undefined == "no image is virus"
    told = " ".join(judgement.warnings)
    for sentence in ("Not every image has a group", "Only 0 test images are virus", "no validation predictions"):
        assert sentence in told
    both = " ".join(judge_classes(test, test, fixed_class_points(NAMES, 0.5), confidence=QUICK).warnings)
    assert "150 images are in validation and in test" in both
    with pytest.raises(ValueError, match="different classes"):
        judge_classes(None, test, fixed_class_points(("a", "b"), 0.5))
