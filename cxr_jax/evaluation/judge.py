"""The judgement of a predictions table: every number that a report prints, in one record."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from cxr_jax.evaluation.calibration import fit_temperature, margins_of
from cxr_jax.evaluation.cases import Cases, calls_of, confidence_of
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judged_calibration import calibration_measures, judge_calibration, judge_decision_curve
from cxr_jax.evaluation.judged_rule import judge_rules
from cxr_jax.evaluation.judgement import (
    AtSensitivity,
    Confusion,
    ForRule,
    JudgedCalls,
    JudgedSplit,
    Judgement,
    TransferredThreshold,
    WrongCall,
)
from cxr_jax.evaluation.measures import Measure, Measured, measure
from cxr_jax.evaluation.metrics import (
    CALL_METRICS,
    METRICS,
    Metric,
    confusion_matrix,
    metric_value,
    specificity_at_sensitivity,
    threshold_at_sensitivity,
)
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.evaluation.shift import diagnose_shift
from cxr_jax.evaluation.split_warnings import warnings_of_splits
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL, PNEUMONIA, SUBTYPE_NAMES

Results = dict[tuple[str, ...], Measured]
"""Measures by section and name."""

TARGET_SENSITIVITIES = (0.95, 0.975)

ONE_HALF = 0.5
"""The threshold of most published results, at which calls are judged too so that they can be compared."""

WORST_ERRORS = 24
"""How many of the most confident errors a judgement lists."""

_RATES = ("sensitivity", "specificity")


def judge(
    validation: Predictions | None,
    test: Predictions,
    threshold: float,
    *,
    operating_point: OperatingPoint | None = None,
    confidence: Confidence | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Judgement:
    """Judges predictions on test, at a threshold that was fixed before, beside those on validation if there are any.

    Args:
        validation: predictions on the validation images, which calibration and transferred thresholds come from.
        test: the predictions to judge.
        threshold: an image is called PNEUMONIA if its probability is at least this.
        operating_point: how the threshold was chosen; without it, it counts as fixed beforehand, and the temperature
            is fitted on `validation`.
        confidence: level, resamples and seed of the intervals.
        advance: told how many more resamples are done; there are `resamples_in_all`.

    Raises:
        ValueError: `threshold` is not that of `operating_point`.
    """
    if operating_point is None:
        operating_point = _fixed(threshold, validation)
    if operating_point.threshold != threshold:
        raise ValueError(f"threshold {threshold} is not the operating point's {operating_point.threshold}")
    confidence = confidence or Confidence()
    transferred = _transferred_thresholds(validation)
    rules = {str(target): _at_sensitivity(threshold, target) for target, threshold in transferred.items()}
    if operating_point.rule != "fixed":
        rules["operating point"] = operating_point
    drawn = {} if validation is None else judge_rules(validation, test, rules, confidence, advance)
    of_split = partial(
        _judge_split,
        threshold=threshold,
        temperature=operating_point.temperature,
        transferred=transferred,
        confidence=confidence,
        advance=advance,
    )
    return Judgement(
        confidence=confidence,
        operating_point=operating_point,
        test=of_split(test, rules=drawn),
        validation=None if validation is None else of_split(validation, rules={}),
        for_rule=drawn.get("operating point"),
        shift=None if validation is None else diagnose_shift(validation, test, threshold, confidence.level),
        warnings=tuple(
            warnings_of_splits(validation, test, CLASS_NAMES, "calibration and the threshold's promise are")
        ),
    )


def resamples_in_all(confidence: Confidence, *, with_validation: bool) -> int:
    """Returns how many resamples `judge` makes: of test, and of validation by itself and together with test."""
    return confidence.resamples * (3 if with_validation else 1)


def _at_sensitivity(threshold: float, target: float) -> OperatingPoint:
    return OperatingPoint(threshold=threshold, rule="sensitivity", parameters={"target_sensitivity": target})


def _fixed(threshold: float, validation: Predictions | None) -> OperatingPoint:
    """Returns the operating point of a threshold that no rule chose."""
    if validation is None:
        return OperatingPoint(threshold=threshold, parameters={"threshold": threshold})
    cases = Cases.unweighted(validation.label, validation.probability, threshold)
    return OperatingPoint(
        threshold=threshold,
        parameters={"threshold": threshold},
        sensitivity=metric_value("sensitivity", cases),
        specificity=metric_value("specificity", cases),
        images=len(validation),
        temperature=fit_temperature(margins_of(validation), validation.label),
    )


def _transferred_thresholds(validation: Predictions | None) -> dict[float, float]:
    """Returns, for every target sensitivity, the threshold that reaches it on validation; empty where none can."""
    if validation is None or not (validation.label == PNEUMONIA).any():
        return {}
    cases = Cases.unweighted(validation.label, validation.probability)
    return {target: threshold_at_sensitivity(cases, target) for target in TARGET_SENSITIVITIES}


def _judge_split(
    predictions: Predictions,
    *,
    threshold: float,
    temperature: float | None,
    transferred: dict[float, float],
    rules: dict[str, ForRule],
    confidence: Confidence,
    advance: Callable[[int], None],
) -> JudgedSplit:
    """Returns the judgement of one split."""
    measures = {
        **{("metrics", name): Measure(metric) for name, metric in METRICS.items()},
        **{("at_one_half", name): Measure(METRICS[name], threshold=ONE_HALF) for name in CALL_METRICS},
        **_group_measures(predictions),
        **_subtype_measures(predictions),
        **_sensitivity_measures(transferred),
        **calibration_measures(predictions, temperature),
    }
    results: Results = measure(predictions, threshold, measures, confidence, advance)
    labels = Counter(predictions.label.tolist())
    subtypes = Counter(predictions.subtype)
    present = [name for name in SUBTYPE_NAMES if subtypes[name]]
    return JudgedSplit(
        images=len(predictions),
        groups=len(set(predictions.group)) if predictions.has_groups else None,
        classes={name: labels[index] for index, name in enumerate(CLASS_NAMES)},
        subtypes={name: subtypes[name] for name in present},
        all_pneumonia_accuracy=labels[PNEUMONIA] / len(predictions),
        confusion=_confusion(predictions, threshold),
        metrics={name: results["metrics", name] for name in METRICS},
        by_group={name: results["by_group", name] for name in _RATES} if predictions.has_groups else None,
        by_subtype={
            subtype: {name: results["by_subtype", subtype, name] for name in ("sensitivity", "roc_auc")}
            for subtype in present
            if subtype != "normal"
        },
        at_one_half=_at_one_half(predictions, threshold, results),
        specificity_at_sensitivity=_at_sensitivities(predictions, transferred, rules, results),
        calibration=judge_calibration(predictions, temperature, results, confidence.level),
        decision_curve=judge_decision_curve(predictions, temperature),
        worst_errors=_worst_errors(predictions, threshold),
    )


def _confusion(predictions: Predictions, threshold: float) -> Confusion:
    counts = confusion_matrix(predictions.label, predictions.probability, threshold)
    return tuple(tuple(row) for row in counts.tolist())


def _at_one_half(predictions: Predictions, threshold: float, results: Results) -> JudgedCalls | None:
    """Returns the calls at a threshold of 0.5; None if that is `threshold`."""
    if threshold == ONE_HALF:
        return None
    metrics = {name: results["at_one_half", name] for name in CALL_METRICS}
    return JudgedCalls(_confusion(predictions, ONE_HALF), metrics)


def _group_measures(predictions: Predictions) -> dict[tuple[str, ...], Measure]:
    """Returns both rates with every group counting once in its class, however many images it has; none without."""
    if not predictions.has_groups:
        return {}
    _, index, sizes = np.unique(2 * predictions.clusters() + predictions.label, return_inverse=True, return_counts=True)
    measures = {}
    for name in _RATES:
        metric = dataclasses.replace(METRICS[name], title=f"{name.capitalize()}, every group counting once")
        measures["by_group", name] = Measure(metric, weights=1 / sizes[index])
    return measures


def _subtype_measures(predictions: Predictions) -> dict[tuple[str, ...], Measure]:
    """Returns sensitivity and ROC-AUC of every kind of pneumonia against all NORMAL images."""
    subtype = np.array(predictions.subtype)
    normal = predictions.label == NORMAL
    return {
        ("by_subtype", name, metric): Measure(METRICS[metric], rows=normal | (subtype == name))
        for name in SUBTYPE_NAMES
        if name != "normal" and (subtype == name).any()
        for metric in ("sensitivity", "roc_auc")
    }


def _sensitivity_measures(transferred: dict[float, float]) -> dict[tuple[str, ...], Measure]:
    """Returns, for every target, the specificity read off the ROC and both rates at validation's threshold."""
    measures = {}
    for target in TARGET_SENSITIVITIES:
        read_off = Metric(
            f"Specificity at {100 * target:g} % sensitivity",
            partial(specificity_at_sensitivity, target=target),
            METRICS["roc_auc"].undefined,
        )
        measures["target", str(target), "read_off"] = Measure(read_off)
        if target in transferred:
            for name in _RATES:
                measures["target", str(target), name] = Measure(METRICS[name], threshold=transferred[target])
    return measures


def _at_sensitivities(
    predictions: Predictions, transferred: dict[float, float], rules: dict[str, ForRule], results: Results
) -> tuple[AtSensitivity, ...]:
    """Returns, for every target, what is read off these images and what the threshold of validation gives on them."""
    has_positives = (predictions.label == PNEUMONIA).any()
    cases = Cases.unweighted(predictions.label, predictions.probability)
    entries = []
    for target in TARGET_SENSITIVITIES:
        kept = None
        if target in transferred:
            rates = {name: results["target", str(target), name] for name in _RATES}
            kept = TransferredThreshold(threshold=transferred[target], **rates, for_rule=rules.get(str(target)))
        read_off = results["target", str(target), "read_off"]
        threshold = threshold_at_sensitivity(cases, target) if has_positives else None
        entries.append(AtSensitivity(target, threshold, read_off, kept))
    return tuple(entries)


def _worst_errors(predictions: Predictions, threshold: float) -> tuple[WrongCall, ...]:
    """Returns the errors made with most confidence, the worst first, by file where two are equally bad."""
    called = calls_of(predictions.probability, threshold)
    confidence = confidence_of(predictions.probability, threshold)
    wrong = np.flatnonzero(called != (predictions.label == PNEUMONIA))
    order = sorted(wrong, key=lambda row: (-confidence[row], predictions.file[row]))[:WORST_ERRORS]
    return tuple(
        WrongCall(
            file=predictions.file[row],
            subtype=predictions.subtype[row],
            label=CLASS_NAMES[predictions.label[row]],
            called=CLASS_NAMES[int(called[row])],
            probability=float(predictions.probability[row]),
        )
        for row in order
    )
