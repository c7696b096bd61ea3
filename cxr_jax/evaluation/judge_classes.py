"""The judgement of a predictions table of K classes or findings: every number that a report prints, in one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import softmax

from cxr_jax.evaluation.cases import calls_of, confidence_of
from cxr_jax.evaluation.class_cases import ClassCases
from cxr_jax.evaluation.class_judgement import ClassJudgement, JudgedClass, JudgedClassSplit, WrongClass
from cxr_jax.evaluation.class_metrics import CLASS_METRICS, OF_PROBABILITIES, ClassMetric
from cxr_jax.evaluation.class_points import ClassPoints, against_the_rest, logits_of
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.finding_cases import FINDING_METRICS, FindingCases
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
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.finding_predictions import FindingPredictions

WORST_ERRORS = 24
"""How many of the most confident errors a judgement lists."""

RANKED = ("roc_auc", "average_precision")
CALLED = ("sensitivity", "specificity", "precision", "f1")
AT_THRESHOLD = ("sensitivity", "specificity", "precision")
"""Metrics of one class: of its probability, of the calls by highest probability, and of those from its threshold on."""

OF_FINDING = (*AT_THRESHOLD, "f1")
"""Metrics of one finding from its threshold on, from which it is called."""


def judge_classes(
    validation: ClassProbabilities | None,
    test: ClassProbabilities,
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
        ValueError: the classes of `validation`, `test` and `points` are not the same, or not of one kind.
    """
    known = [tuple(points.classes), test.classes, *([] if validation is None else [validation.classes])]
    if len(set(known)) > 1 or (validation is not None and validation.KIND != test.KIND):
        raise ValueError(f"predictions of different classes cannot be judged together: {known}")
    confidence = confidence or Confidence()
    return ClassJudgement(
        confidence=confidence,
        points=points,
        test=judge_split(test, points, confidence, advance),
        validation=None if validation is None else judge_split(validation, points, confidence, advance),
        warnings=(
            *warnings_of_splits(validation, test, test.classes, "the promise of the thresholds is"),
            *(_warnings_of_findings(test, points) if isinstance(test, FindingPredictions) else ()),
        ),
        kind_of_classes=test.KIND,
    )


def _warnings_of_findings(test: FindingPredictions, points: ClassPoints) -> list[str]:
    """Returns what a reader must know of findings that means leave out, and of thresholds that no rule chose."""
    warnings = []
    left_out = [name for name in test.classes if len(np.unique(test.asked(name)[1])) < 2]
    if left_out:
        count = len(test.classes) - len(left_out)
        warnings.append(
            f"Means over findings are over {count} of {len(test.classes)}: on test the known labels of "
            f"{', '.join(left_out)} are all alike, or none is known."
        )
    rules = {point.rule for point in points.classes.values()}
    unchosen = {name: point for name, point in points.classes.items() if rules != {"fixed"} and point.rule == "fixed"}
    if unchosen:
        value = next(iter(unchosen.values())).threshold
        warnings.append(
            f"No threshold could be chosen on validation for {', '.join(unchosen)}, whose known labels there are alike "
            f"or none: {value:g} is taken."
        )
    return warnings


def class_resamples_in_all(confidence: Confidence, classes: int, *, with_validation: bool) -> int:
    """Returns how many resamples `judge_classes` makes: of each split for all classes together, and for each alone."""
    return confidence.resamples * (1 + classes) * (2 if with_validation else 1)


def measured_together(
    predictions: ClassProbabilities, points: ClassPoints, confidence: Confidence, advance: Callable[[int], None]
) -> dict[str, Measured]:
    """Returns the metrics of all classes, or of all findings, together; `advance` as for one split."""
    if isinstance(predictions, FindingPredictions):
        thresholds = {name: point.threshold for name, point in points.classes.items()}
        cases, defined = FindingCases.unweighted(predictions, thresholds), FINDING_METRICS
    else:
        cases, defined = ClassCases.unweighted(predictions), CLASS_METRICS
    metrics = {name: (metric, None) for name, metric in defined.items()}
    return _measured(predictions, cases, metrics, confidence, advance)


def judge_split(
    predictions: ClassProbabilities, points: ClassPoints, confidence: Confidence, advance: Callable[[int], None]
) -> JudgedClassSplit:
    """Returns the judgement of one split."""
    if isinstance(predictions, FindingPredictions):
        return _judge_findings(predictions, points, confidence, advance)
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


def _judge_findings(
    predictions: FindingPredictions, points: ClassPoints, confidence: Confidence, advance: Callable[[int], None]
) -> JudgedClassSplit:
    """Returns the judgement of one split of findings."""
    thresholds = {name: point.threshold for name, point in points.classes.items()}
    together = measured_together(predictions, points, confidence, advance)
    classes = {}
    for name in predictions.classes:
        if predictions.asked(name)[0].any():
            classes[name] = _judge_class(predictions, name, points, confidence, advance)
        else:
            advance(confidence.resamples)
    return JudgedClassSplit(
        images=len(predictions),
        groups=len(set(predictions.group)) if predictions.has_groups else None,
        confusion=(),
        metrics=together,
        calibrated=None,
        classes=classes,
        worst_errors=_worst_findings(predictions, thresholds),
    )


def _judge_class(
    predictions: ClassProbabilities,
    name: str,
    points: ClassPoints,
    confidence: Confidence,
    advance: Callable[[int], None],
) -> JudgedClass:
    """Returns the judgement of one class against the rest, or of one finding on the images of which it is known."""
    alone, point = against_the_rest(predictions, name), points.classes[name]
    of_finding = isinstance(predictions, FindingPredictions)
    temperature, at_threshold = (point.temperature, OF_FINDING) if of_finding else (None, AT_THRESHOLD)
    measures = {
        **{("ranked", metric): Measure(METRICS[metric]) for metric in RANKED},
        **({} if of_finding else _measures_of_calls(predictions, name)),
        **{("at_threshold", metric): Measure(METRICS[metric]) for metric in at_threshold},
        **calibration_measures(alone, temperature),
    }
    found = measure(alone, point.threshold, measures, confidence, advance)
    told = _in_words_of_finding if of_finding else _in_words_of
    results = {key: told(name, measured) for key, measured in found.items()}
    return JudgedClass(
        images=int(alone.label.sum()),
        metrics={metric: results["ranked", metric] for metric in RANKED},
        called={} if of_finding else {metric: results["called", metric] for metric in CALLED},
        at_threshold={metric: results["at_threshold", metric] for metric in at_threshold},
        calibration=judge_calibration(alone, temperature, results, confidence.level),
        unknown=len(predictions) - len(alone),
    )


def _measures_of_calls(predictions: ClassPredictions, name: str) -> dict[tuple[str, str], Measure]:
    """Returns the measures of the calls of one class, which is called where its probability is the highest."""
    called = (predictions.called == predictions.classes.index(name)).astype(np.float64)
    return {("called", metric): Measure(METRICS[metric], threshold=0.5, probability=called) for metric in CALLED}


def _in_words_of_finding(name: str, measured: Measured) -> Measured:
    """Returns the measure of one finding with the reason why it has no value told of that finding."""
    reasons = {
        "no image is PNEUMONIA": f"no image shows {name}",
        "no image is NORMAL": f"every image shows {name}",
        "no image is called PNEUMONIA": f"{name} is never called",
        "no image is PNEUMONIA or called so": f"no image shows {name}, and it is never called",
        METRICS["roc_auc"].undefined: f"no image shows {name}, or every one",
    }
    return dataclasses.replace(measured, undefined=reasons.get(measured.undefined, measured.undefined))


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
    predictions: ClassProbabilities,
    cases: ClassCases | FindingCases,
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
    predictions: ClassProbabilities,
    cases: ClassCases | FindingCases,
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
    if metric.proportion is None:
        return [bootstrap]
    right, _ = metric.proportion(cases)
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


def _worst_findings(predictions: FindingPredictions, thresholds: Mapping[str, float]) -> tuple[WrongClass, ...]:
    """Returns the wrong calls of findings that are furthest from their thresholds, each as a share of what it could."""
    errors = []
    for name in predictions.classes:
        rows, shown = predictions.asked(name)
        probability = predictions.probabilities[rows, predictions.classes.index(name)]
        called, furthest = calls_of(probability, thresholds[name]), confidence_of(probability, thresholds[name])
        files = np.flatnonzero(rows)
        for index in np.flatnonzero(called != shown):
            words = (name, f"no {name}") if shown[index] else (f"no {name}", name)
            error = WrongClass(predictions.file[files[index]], *words, float(probability[index]))
            errors.append((-float(furthest[index]), error.file, name, error))
    return tuple(error for *_, error in sorted(errors, key=lambda entry: entry[:3])[:WORST_ERRORS])
