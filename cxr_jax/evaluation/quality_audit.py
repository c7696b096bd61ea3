"""Do errors go with the quality of the image? Wrong and right calls of one class compared, measure by measure.

It looks at test labels to explain a result; nothing may be chosen by it. A difference is no cause: what shows disease
changes the picture too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

from cxr_jax.evaluation.cases import Cases, calls_of
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import Interval, bootstrap_weights, obuchowski_covariance, percentile_interval
from cxr_jax.evaluation.metrics import roc_auc
from cxr_jax.evaluation.paired import holm
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import NORMAL, PNEUMONIA

SIGNIFICANT = 0.05
"""Adjusted p-value below which a difference counts as shown."""

FEW = 20
"""Wrong or right images below which no test is made: the normal approximation would be too sure of itself."""

ERROR_KINDS = {"false_positives": NORMAL, "false_negatives": PNEUMONIA}
"""The kinds of errors, and the class whose images they are among."""

Columns = Mapping[str, np.ndarray]
"""Measures of N images, float [N] each, by name."""

Verdict = Literal["higher", "lower", "not shown", "not tested"]


@dataclass(frozen=True)
class Chance:
    """The probability that an error has a higher value than a right call, ties counting half; 0.5 without relation.

    Mann & Whitney 1947. Its interval is Obuchowski's of 1997, without groups DeLong's of 1988; None where it does not
    exist.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class MeasureComparison:
    """How one measure differs between the wrongly and the rightly called images of a class.

    Attributes:
        error_mean: mean over the wrongly called.
        right_mean: mean over the rightly called.
        difference: first minus second.
        standardised: the difference in pooled standard deviations (Cohen 1988), None where they are 0.
        higher: the chance that an error has the higher value.
        p_value: of that chance being 0.5, two-sided; None without interval or with fewer than `FEW` images on a side.
        adjusted_p_value: adjusted over the measures that are compared (Holm 1979).
        verdict: of the chance, by the adjusted p-value.
        interval: of `difference`, by bootstrap of groups.
    """

    error_mean: float
    right_mean: float
    difference: float
    standardised: float | None
    higher: Chance
    p_value: float | None
    adjusted_p_value: float | None
    verdict: Verdict
    interval: Interval | None


@dataclass(frozen=True)
class ErrorAudit:
    """One kind of error: how many there are, how many right calls of the same class, and each measure compared.

    A measure is None where it is the same for all images, or one side is empty.
    """

    errors: int
    right: int
    measures: dict[str, MeasureComparison | None]


@dataclass(frozen=True)
class Quantiles:
    """The quantiles of a measure at 5, 50 and 95 %."""

    low: float
    median: float
    high: float


def audit_errors(
    columns: Columns, predictions: Predictions, threshold: float, confidence: Confidence | None = None
) -> dict[str, ErrorAudit]:
    """Returns how the measures of wrongly called images differ from those of rightly called ones of the same class.

    Args:
        columns: measures of the images, row for row those of `predictions`.
        predictions: what was called.
        threshold: an image is called PNEUMONIA if its probability is at least this.
        confidence: level, resamples and seed of the intervals.

    Returns:
        `false_positives` (among NORMAL images) and `false_negatives` (among PNEUMONIA images). P-values are adjusted
        over the measures of one kind of error.
    """
    confidence = confidence or Confidence()
    called = calls_of(predictions.probability, threshold)
    audit = {}
    for kind, label in ERROR_KINDS.items():
        rows = predictions.label == label
        clusters = predictions.clusters()[rows]
        own = {name: np.asarray(values, np.float64)[rows] for name, values in columns.items()}
        grouped = predictions.has_groups
        audit[kind] = compare_errors(own, (called != label)[rows], clusters if grouped else None, confidence)
    return audit


def compare_errors(
    columns: Columns, wrong: np.ndarray, clusters: np.ndarray | None, confidence: Confidence
) -> ErrorAudit:
    """Returns, for N images of one class, how the measures of the wrongly called differ from those of the others.

    Args:
        columns: measures, float64 [N] each.
        wrong: bool [N], called wrongly.
        clusters: int [N], equal for images of one group; None takes images for independent.
        confidence: level, resamples and seed of the intervals.
    """
    errors = int(wrong.sum())
    measures: dict[str, MeasureComparison | None] = dict.fromkeys(columns)
    compared = [name for name, values in columns.items() if 0 < errors < len(wrong) and np.ptp(values) > 0]
    if compared:
        values = np.stack([columns[name] for name in compared])
        intervals = _difference_intervals(values, wrong, clusters, confidence)
        rows = zip(values, intervals, strict=True)
        comparisons = [_comparison(row, wrong, clusters, confidence.level, interval) for row, interval in rows]
        measures |= dict(zip(compared, _with_verdicts(comparisons), strict=True))
    return ErrorAudit(errors=errors, right=len(wrong) - errors, measures=measures)


def _with_verdicts(comparisons: list[MeasureComparison]) -> list[MeasureComparison]:
    """Returns the comparisons with p-values adjusted over those that were tested, and what follows from them."""
    adjusted = iter(holm([entry.p_value for entry in comparisons if entry.p_value is not None]))
    judged = []
    for entry in comparisons:
        if entry.p_value is not None:
            p_value = next(adjusted)
            direction: Verdict = "higher" if entry.higher.value > 0.5 else "lower"
            verdict = direction if p_value < SIGNIFICANT else "not shown"
            entry = dataclasses.replace(entry, adjusted_p_value=p_value, verdict=verdict)
        judged.append(entry)
    return judged


def _comparison(
    values: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None, level: float, interval: Interval | None
) -> MeasureComparison:
    """Returns the comparison of one measure [N] with the interval of its difference, before p-values are adjusted."""
    of_errors, of_right = values[wrong], values[~wrong]
    difference = float(of_errors.mean() - of_right.mean())
    freedom = len(values) - 2
    pooled = np.sqrt(sum(len(part) * part.var() for part in (of_errors, of_right)) / freedom) if freedom > 0 else 0.0
    higher = float(roc_auc(Cases.unweighted(wrong.astype(int), values))[0])
    error = _standard_error(values, wrong, clusters)
    tested = error is not None and min(len(of_errors), len(of_right)) >= FEW
    return MeasureComparison(
        error_mean=float(of_errors.mean()),
        right_mean=float(of_right.mean()),
        difference=difference,
        standardised=difference / float(pooled) if pooled > 0 else None,
        higher=Chance(higher, None if error is None else _chance_interval(higher, error, clusters, level)),
        p_value=float(2 * norm.sf(abs(higher - 0.5) / error)) if tested else None,
        adjusted_p_value=None,
        verdict="not tested",
        interval=interval,
    )


def _chance_interval(higher: float, error: float, clusters: np.ndarray | None, level: float) -> Interval:
    half = float(norm.ppf((1 + level) / 2)) * error
    return Interval(max(higher - half, 0.0), min(higher + half, 1.0), "DeLong" if clusters is None else "Obuchowski")


def _standard_error(values: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None) -> float | None:
    """Returns the standard error of the probability that an error is higher; None where it does not exist."""
    independent = np.arange(len(values)) if clusters is None else clusters
    try:
        _, covariance = obuchowski_covariance(wrong.astype(int), values, independent)
    except ValueError:
        return None
    variance = float(covariance[0, 0])
    return float(np.sqrt(variance)) if variance > 1e-18 else None


def _difference_intervals(
    values: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None, confidence: Confidence
) -> list[Interval | None]:
    """Returns the bootstrap interval of the difference of means for every measure of `values` [M, N]."""
    independent = np.arange(len(wrong)) if clusters is None else clusters
    weights = bootstrap_weights(independent, confidence.resamples, np.random.default_rng(confidence.seed))
    means = []
    for side in (wrong, ~wrong):
        total = weights @ side.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            means.append(weights @ (values * side).T / total[:, None])  # [R, M], NaN where the side was not drawn
    method = "bootstrap" if clusters is None else "group bootstrap"
    differences = values[:, wrong].mean(axis=1) - values[:, ~wrong].mean(axis=1)
    return [
        percentile_interval(column, float(difference), confidence.level, method)
        for column, difference in zip((means[0] - means[1]).T, differences, strict=True)
    ]


def summarise(columns: Columns) -> dict[str, Quantiles]:
    """Returns the quantiles of every measure."""
    return {name: Quantiles(*np.quantile(values, (0.05, 0.5, 0.95)).tolist()) for name, values in columns.items()}
