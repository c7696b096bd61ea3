"""Whether a split's probabilities are what they say, and what acting on them would gain: two parts of a judgement."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from cxr_jax.evaluation.calibration import (
    BINNINGS,
    Coefficient,
    apply_temperature,
    calibration_gaps,
    calibration_in_the_large,
    expected_calibration_error,
    margins_of,
    recalibration,
    reliability_curve,
)
from cxr_jax.evaluation.decision_curve import THRESHOLDS, decision_curve, treat_all_curve
from cxr_jax.evaluation.judgement import (
    Calibration,
    CalibrationError,
    CalibrationMoment,
    DecisionCurve,
    Recalibration,
)
from cxr_jax.evaluation.measures import Measure, Measured
from cxr_jax.evaluation.metrics import METRICS, Metric
from cxr_jax.runs.predictions import Predictions

_CALIBRATION_METRICS = ("log_loss", "brier")


def calibration_measures(predictions: Predictions, temperature: float | None) -> dict[tuple[str, ...], Measure]:
    """Returns log-loss, Brier score and every calibration error, before and after the temperature."""
    measures = {}
    for moment, probability in _moments(predictions, temperature).items():
        for name in _CALIBRATION_METRICS:
            measures["calibration", moment, name] = Measure(METRICS[name], probability=probability)
        for binning, bins in BINNINGS:
            error = Metric(
                f"Calibration error, {bins} bins of equal {binning}",
                partial(expected_calibration_error, binning=binning, bins=bins),
                "there is no image",
                parts=partial(calibration_gaps, binning=binning, bins=bins),
            )
            measures["calibration", moment, f"{binning}-{bins}"] = Measure(error, probability=probability)
    return measures


def judge_calibration(
    predictions: Predictions, temperature: float | None, results: Mapping[tuple[str, ...], Measured], level: float
) -> Calibration:
    """Returns calibration before and, if there is a temperature, after it."""
    moments = {}
    for moment, probability in _moments(predictions, temperature).items():
        errors = (
            CalibrationError(**vars(results["calibration", moment, f"{binning}-{bins}"]), binning=binning, bins=bins)
            for binning, bins in BINNINGS
        )
        moments[moment] = CalibrationMoment(
            **{name: results["calibration", moment, name] for name in _CALIBRATION_METRICS},
            errors=tuple(errors),
            curve=tuple(reliability_curve(predictions.label, probability)),
            recalibration=_recalibration(predictions, 1 if moment == "before" else temperature, level),
        )
    return Calibration(temperature, moments.get("after"), moments["before"])


def _recalibration(predictions: Predictions, temperature: float, level: float) -> Recalibration:
    """Returns the recalibration of margins that are divided by the temperature."""
    margins, label = margins_of(predictions) / temperature, predictions.label
    clusters = predictions.clusters() if predictions.has_groups else None
    intercept, slope = recalibration(margins, label, clusters, level) or (None, None)
    unknown = "the images are of one class only, or the scores separate the classes without error"
    return Recalibration(
        slope=_coefficient("Calibration slope", slope, unknown),
        intercept=_coefficient("Calibration intercept", intercept, unknown),
        in_the_large=_coefficient(
            "Calibration in the large",
            calibration_in_the_large(margins, label, clusters, level),
            METRICS["roc_auc"].undefined,
        ),
    )


def _coefficient(title: str, found: Coefficient | None, unknown: str) -> Measured:
    if found is None:
        return Measured(title, None, unknown, ())
    return Measured(title, found.value, None, () if found.interval is None else (found.interval,))


def _moments(predictions: Predictions, temperature: float | None) -> dict[str, np.ndarray]:
    """Returns the probabilities before and, if there is a temperature, after scaling, float64 [N] each."""
    moments = {"before": predictions.probability}
    if temperature is not None:
        moments["after"] = apply_temperature(margins_of(predictions), temperature)
    return moments


def judge_decision_curve(predictions: Predictions, temperature: float | None) -> DecisionCurve:
    """Returns the net benefit at every threshold, before and, if there is a temperature, after it."""
    curves = {
        moment: tuple(decision_curve(predictions.label, probability))
        for moment, probability in _moments(predictions, temperature).items()
    }
    everybody = tuple(treat_all_curve(predictions.label))
    return DecisionCurve(tuple(THRESHOLDS.tolist()), curves.get("after"), curves["before"], everybody)
