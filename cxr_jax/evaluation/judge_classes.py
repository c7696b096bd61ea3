"""The judgement of a predictions table of K exclusive classes: every number that a report prints, in one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import softmax

from cxr_jax.evaluation.class_cases import ClassCases
from cxr_jax.evaluation.class_judgement import ClassJudgement, JudgedClass, JudgedClassSplit, WrongClass
from cxr_jax.evaluation.class_metrics import CLASS_METRICS, OF_PROBABILITIES, ClassMetric
from cxr_jax.evaluation.class_points import ClassPoints, against_the_rest, logits_of
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import (
    Interval,
    absolute_sum_interval,
    bootstrap_values,
    percentile_interval,
    wilson_interval,
    wilson_interval_of_groups,
)
from cxr_jax.evaluation.judged_calibration import calibration_measures, judge_calibration
from cxr_jax.evaluation.measures import Measure, Measured, measure
from cxr_jax.evaluation.metrics import METRICS
from cxr_jax.evaluation.split_warnings import warnings_of_splits
from cxr_jax.runs.class_predictions import ClassPredictions

WORST_ERRORS = 24
"""How many of the most confident errors a judgement lists."""

RANKED = ("roc_auc", "average_precision")
CALLED = ("sensitivity", "specificity", "precision", "f1")
AT_THRESHOLD = ("sensitivity", "specificity", "precision")
"""Metrics of one class: of its probability, of the calls by highest probability, and of those from its threshold on."""


def judge_classes(
    validation: ClassPredictions | None,
    test: ClassPredictions,
    points: ClassPoints,
    *,
    confidence: Confidence | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> ClassJudgement:
    """Judges predictions on test, with thresholds and a temperature fixed before, beside those on validation.

    Args:
        validation: predictions on the validation images, if there are any.
        test: the predictions to judge.
        points: what was fixed on validation.
        confidence: level, resamples and seed of the intervals.
        advance: told how many more resamples are done; there are `class_resamples_in_all`.

    Raises:
        ValueError: the classes of `validation`, `test` and `points` are not the same.
    """
    known = [tuple(points.classes), test.classes, *([] if validation is None else [validation.classes])]
    if len(set(known)) > 1:
        raise ValueError(f"predictions of different classes cannot be judged together: {known}")
    confidence = confidence or Confidence()
    return ClassJudgement(
        confidence=confidence,
        points=points,
        test=_judge_split(test, points, confidence, advance),
        validation=None if validation is None else _judge_split(validation, points, confidence, advance),
        warnings=tuple(warnings_of_splits(validation, test, test.classes, "the promise of the thresholds is")),
    )


def class_resamples_in_all(confidence: Confidence, classes: int, *, with_validation: bool) -> int:
    """Returns how many resamples `judge_classes` makes: of each split for all classes together, and for each alone."""
    return confidence.resamples * (1 + classes) * (2 if with_validation else 1)


def _judge_split(
    predictions: ClassPredictions, points: ClassPoints, confidence: Confidence, advance: Callable[[int], None]
) -> JudgedClassSplit:
    """Returns the judgement of one split."""
    cases = ClassCases.unweighted(predictions)
    metrics = {name: (metric, None) for name, metric in CLASS_METRICS.items()}
    if points.temperature is not None:
        after = softmax(logits_of(predictions) / points.temperature, axis=1)
        metrics |= {f"calibrated {name}": (CLASS_METRICS[name], after) for name in OF_PROBABILITIES}
    together = _measured(predictions, cases, metrics, confidence, advance)
    return JudgedClassSplit(
        images=len(predictions),
        groups=len(set(predictions.group)) if predictions.has_groups else None,
        confusion=tuple(tuple(int(count) for count in row) for row in cases.confusion[0]),
        metrics={name: together[name] for name in CLASS_METRICS},
        calibrated=None
        if points.temperature is None
        else {name: together[f"calibrated {name}"] for name in OF_PROBABILITIES},
        classes={name: _judge_class(predictions, name, points, confidence, advance) for name in predictions.classes},
        worst_errors=_worst_errors(predictions),
    )


def _judge_class(
    predictions: ClassPredictions,
    name: str,
    points: ClassPoints,
    confidence: Confidence,
    advance: Callable[[int], None],
) -> JudgedClass:
    """Returns the judgement of one class against the rest."""
    alone = against_the_rest(predictions, name)
    called = (predictions.called == predictions.classes.index(name)).astype(np.float64)
    measures = {
        **{("ranked", metric): Measure(METRICS[metric]) for metric in RANKED},
        **{("called", metric): Measure(METRICS[metric], threshold=0.5, probability=called) for metric in CALLED},
        **{("at_threshold", metric): Measure(METRICS[metric]) for metric in AT_THRESHOLD},
        **calibration_measures(alone, None),
    }
    found = measure(alone, points.classes[name].threshold, measures, confidence, advance)
    results = {key: _in_words_of(name, measured) for key, measured in found.items()}
    return JudgedClass(
        images=int(alone.label.sum()),
        metrics={metric: results["ranked", metric] for metric in RANKED},
        called={metric: results["called", metric] for metric in CALLED},
        at_threshold={metric: results["at_threshold", metric] for metric in AT_THRESHOLD},
        calibration=judge_calibration(alone, None, results, confidence.level),
    )


def _in_words_of(name: str, measured: Measured) -> Measured:
    """Returns the measure of one class with the reason why it has no value told of that class."""
    reasons = {
        "no image is PNEUMONIA": f"no image is {name}",
        "no image is NORMAL": f"every image is {name}",
        "no image is called PNEUMONIA": f"no image is called {name}",
        "no image is PNEUMONIA or called so": f"no image is {name} or called so",
        METRICS["roc_auc"].undefined: f"no image is {name}, or every one",
    }
    return dataclasses.replace(measured, undefined=reasons.get(measured.undefined, measured.undefined))


def _measured(
    predictions: ClassPredictions,
    cases: ClassCases,
    metrics: Mapping[str, tuple[ClassMetric, np.ndarray | None]],
    confidence: Confidence,
    advance: Callable[[int], None],
) -> dict[str, Measured]:
    """Returns metrics by name, each of the probabilities [N, K] beside it or else of those of `cases`."""
    clusters = predictions.clusters()

    def of(metric: Callable[[ClassCases], np.ndarray], probabilities: np.ndarray | None) -> Callable:
        if probabilities is None:
            return metric
        return lambda cases: metric(dataclasses.replace(cases, probabilities=probabilities))

    functions = {
        name: of(metric.parts or metric.function, probabilities) for name, (metric, probabilities) in metrics.items()
    }
    resampled = bootstrap_values(
        cases, clusters, functions, resamples=confidence.resamples, seed=confidence.seed, advance=advance
    )
    results = {}
    for name, (metric, probabilities) in metrics.items():
        value = float(of(metric.function, probabilities)(cases)[0])
        undefined = bool(np.isnan(value))
        intervals = [] if undefined else _intervals(predictions, cases, name, metric, functions, resampled, confidence)
        results[name] = Measured(
            metric.title,
            None if undefined else value,
            metric.undefined if undefined else None,
            tuple(interval for interval in intervals if interval is not None),
        )
    return results


def _intervals(
    predictions: ClassPredictions,
    cases: ClassCases,
    name: str,
    metric: ClassMetric,
    functions: Mapping[str, Callable],
    resampled: Mapping[str, np.ndarray],
    confidence: Confidence,
) -> list[Interval | None]:
    """Returns the intervals of one metric, the one to show first."""
    grouped, level = predictions.has_groups, confidence.level
    method = "group bootstrap" if grouped else "bootstrap"
    value = functions[name](cases)[0]
    if metric.parts is not None:
        return [absolute_sum_interval(value, resampled[name], level, method)]
    bootstrap = percentile_interval(resampled[name], float(value), level, method)
    if not metric.is_share:
        return [bootstrap]
    right = cases.called == cases.label
    of_images = wilson_interval(float(right.sum()), len(right), level)
    if not grouped:
        return [of_images, bootstrap]
    return [wilson_interval_of_groups(right, predictions.clusters(), None, level), bootstrap, of_images]


def _worst_errors(predictions: ClassPredictions) -> tuple[WrongClass, ...]:
    """Returns the errors with the highest probability of the class that was called, by file where two are equal."""
    called, highest = predictions.called, predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(called != predictions.label)
    order = sorted(wrong, key=lambda row: (-highest[row], predictions.file[row]))[:WORST_ERRORS]
    names = predictions.classes
    return tuple(
        WrongClass(
            predictions.file[row], names[predictions.label[row]], names[called[row]], float(min(highest[row], 1.0))
        )
        for row in order
    )
