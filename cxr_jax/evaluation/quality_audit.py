"""Do errors go with the quality of the image? Wrong and right calls of one class compared, measure by measure.

It looks at test labels to explain a result; nothing may be chosen by it. A difference is no cause: what shows disease
changes the picture too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import norm

from cxr_jax.evaluation.cases import Cases, calls_of
from cxr_jax.evaluation.intervals import bootstrap_weights, obuchowski_covariance, percentile_interval
from cxr_jax.evaluation.measures import Confidence
from cxr_jax.evaluation.metrics import roc_auc
from cxr_jax.evaluation.paired import holm
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import NORMAL, PNEUMONIA

SIGNIFICANT = 0.05
"""Adjusted p-value below which a difference counts as shown."""

FEW = 20
"""Wrong or right images below which no test is made: the normal approximation would be too sure of itself."""

_KINDS = {"false_positives": NORMAL, "false_negatives": PNEUMONIA}

Columns = Mapping[str, np.ndarray]
"""Measures of N images, float [N] each, by name."""


def audit_errors(
    columns: Columns, predictions: Predictions, threshold: float, confidence: Confidence | None = None
) -> dict[str, Any]:
    """Return how the measures of wrongly called images differ from those of rightly called ones of the same class.

    Args:
        columns: measures of the images, row for row those of `predictions`.
        predictions: what was called.
        threshold: an image is called PNEUMONIA if its probability is at least this.
        confidence: level, resamples and seed of the intervals.

    Returns:
        An object for JSON: `false_positives` (among NORMAL images) and `false_negatives` (among PNEUMONIA images), see
        `compare_errors`. P-values are adjusted over the measures of one kind of error.
    """
    confidence = confidence or Confidence()
    called = calls_of(predictions.probability, threshold)
    audit = {}
    for kind, label in _KINDS.items():
        rows = predictions.label == label
        clusters = predictions.clusters()[rows]
        own = {name: np.asarray(values, np.float64)[rows] for name, values in columns.items()}
        grouped = predictions.has_groups
        audit[kind] = compare_errors(own, (called != label)[rows], clusters if grouped else None, confidence)
    return audit


def compare_errors(
    columns: Columns, wrong: np.ndarray, clusters: np.ndarray | None, confidence: Confidence
) -> dict[str, Any]:
    """Return, for N images of one class, how the measures of the wrongly called differ from those of the others.

    Args:
        columns: measures, float64 [N] each.
        wrong: bool [N], called wrongly.
        clusters: int [N], equal for images of one group; None takes images for independent.
        confidence: level, resamples and seed of the intervals.

    Returns:
        `errors` and `right` (images), and `measures`, by name None where the measure is the same for all or one side
        is empty, else

        - `error_mean`, `right_mean`, `difference` (first minus second) and its `interval` by bootstrap of groups;
        - `standardised`: the difference in pooled standard deviations (Cohen 1988), None where they are 0;
        - `higher`: `value`, the probability that an error has a higher value than a right call, ties counting half
          (Mann & Whitney 1947), 0.5 without relation, and its `interval` (Obuchowski 1997, without groups DeLong 1988;
          None where it does not exist);
        - `p_value` of that probability being 0.5, two-sided, and `adjusted_p_value` (Holm 1979); None without interval
          or with fewer than `FEW` images on a side;
        - `verdict`: `higher`, `lower` or `not shown`, by the adjusted p-value; `not tested` without one.
    """
    errors = int(wrong.sum())
    result: dict[str, Any] = {"errors": errors, "right": len(wrong) - errors, "measures": dict.fromkeys(columns)}
    compared = [name for name, values in columns.items() if 0 < errors < len(wrong) and np.ptp(values) > 0]
    if not compared:
        return result
    values = np.stack([columns[name] for name in compared])
    intervals = _difference_intervals(values, wrong, clusters, confidence)
    for name, row, interval in zip(compared, values, intervals, strict=True):
        result["measures"][name] = _entry(row, wrong, clusters, confidence.level) | {"interval": interval}
    tested = [result["measures"][name] for name in compared if result["measures"][name]["p_value"] is not None]
    for entry, adjusted in zip(tested, holm([entry["p_value"] for entry in tested]), strict=True):
        shown = adjusted < SIGNIFICANT
        entry["adjusted_p_value"] = adjusted
        entry["verdict"] = ("higher" if entry["higher"]["value"] > 0.5 else "lower") if shown else "not shown"
    return result


def _entry(values: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None, level: float) -> dict[str, Any]:
    """Return the comparison of one measure [N], before p-values are adjusted."""
    of_errors, of_right = values[wrong], values[~wrong]
    difference = float(of_errors.mean() - of_right.mean())
    freedom = len(values) - 2
    pooled = np.sqrt(sum(len(part) * part.var() for part in (of_errors, of_right)) / freedom) if freedom > 0 else 0.0
    higher = float(roc_auc(Cases.unweighted(wrong.astype(int), values))[0])
    error = _standard_error(values, wrong, clusters)
    half = None if error is None else float(norm.ppf((1 + level) / 2)) * error
    tested = error is not None and min(len(of_errors), len(of_right)) >= FEW
    method = "DeLong" if clusters is None else "Obuchowski"
    return {
        "error_mean": float(of_errors.mean()),
        "right_mean": float(of_right.mean()),
        "difference": difference,
        "standardised": difference / float(pooled) if pooled > 0 else None,
        "higher": {
            "value": higher,
            "interval": None
            if half is None
            else {"low": max(higher - half, 0.0), "high": min(higher + half, 1.0), "method": method},
        },
        "p_value": float(2 * norm.sf(abs(higher - 0.5) / error)) if tested else None,
        "adjusted_p_value": None,
        "verdict": "not tested",
    }


def _standard_error(values: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None) -> float | None:
    """Return the standard error of the probability that an error is higher; None where it does not exist."""
    independent = np.arange(len(values)) if clusters is None else clusters
    try:
        _, covariance = obuchowski_covariance(wrong.astype(int), values, independent)
    except ValueError:
        return None
    variance = float(covariance[0, 0])
    return float(np.sqrt(variance)) if variance > 1e-18 else None


def _difference_intervals(
    values: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None, confidence: Confidence
) -> list[dict[str, Any] | None]:
    """Return the bootstrap interval of the difference of means for every measure of `values` [M, N]."""
    independent = np.arange(len(wrong)) if clusters is None else clusters
    weights = bootstrap_weights(independent, confidence.resamples, np.random.default_rng(confidence.seed))
    means = []
    for side in (wrong, ~wrong):
        total = weights @ side.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            means.append(weights @ (values * side).T / total[:, None])  # [R, M], NaN where the side was not drawn
    method = "bootstrap" if clusters is None else "group bootstrap"
    differences = values[:, wrong].mean(axis=1) - values[:, ~wrong].mean(axis=1)
    found = [
        percentile_interval(column, float(difference), confidence.level, method)
        for column, difference in zip((means[0] - means[1]).T, differences, strict=True)
    ]
    return [None if interval is None else dataclasses.asdict(interval) for interval in found]


def summarise(columns: Columns) -> dict[str, dict[str, float]]:
    """Return `low`, `median` and `high` of every measure: its quantiles at 5, 50 and 95 %."""
    return {
        name: dict(zip(("low", "median", "high"), np.quantile(values, (0.05, 0.5, 0.95)).tolist(), strict=True))
        for name, values in columns.items()
    }
