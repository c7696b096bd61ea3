"""Values with their intervals: what a report prints of one number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import (
    Interval,
    absolute_sum_interval,
    auc_interval,
    bootstrap_values,
    percentile_interval,
    wilson_interval,
    wilson_interval_of_groups,
)
from cxr_jax.evaluation.metrics import METRICS, Metric
from cxr_jax.runs.predictions import Predictions


@dataclass(frozen=True)
class Measured:
    """The value of a metric with its intervals.

    Attributes:
        title: what the metric is called.
        value: None where it is undefined.
        undefined: the reason why there is no value; None where there is one.
        intervals: the one to show comes first; empty where there is none.
    """

    title: str
    value: float | None
    undefined: str | None
    intervals: tuple[Interval, ...]

    @property
    def interval(self) -> Interval | None:
        """The interval to show."""
        return self.intervals[0] if self.intervals else None


@dataclass(frozen=True)
class Measure:
    """A metric, on all images at the threshold of the predictions unless something else is said.

    Attributes:
        metric: what is computed.
        rows: mask [N] of the images that it is computed on; None for all.
        threshold: the threshold that it is computed at; None for that of the predictions.
        probability: float64 [N], probabilities in place of those of the predictions, or None.
        weights: float64 [N], how much each image counts; None if all count the same.
    """

    metric: Metric
    rows: np.ndarray | None = None
    threshold: float | None = None
    probability: np.ndarray | None = None
    weights: np.ndarray | None = None

    def cases(self, cases: Cases) -> Cases:
        """Returns the cases that the metric is computed on."""
        if self.threshold is not None:
            cases = cases.at(self.threshold)
        if self.probability is not None:
            cases = dataclasses.replace(cases, probability=self.probability)
        if self.weights is not None:
            cases = dataclasses.replace(cases, weights=cases.weights * self.weights)
        return cases if self.rows is None else cases.where(self.rows)

    @property
    def parts(self) -> Callable[[Cases], np.ndarray] | None:
        """What returns float64 [R, B], whose absolute values add up to the measure; None if it is no such sum."""
        parts = self.metric.parts
        return None if parts is None else lambda cases: parts(self.cases(cases))

    def values(self, cases: Cases) -> np.ndarray:
        """Returns float64 [R], NaN where it is undefined."""
        return self.metric.function(self.cases(cases))


def measure(
    predictions: Predictions,
    threshold: float,
    measures: Mapping[str, Measure],
    confidence: Confidence,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Measured]:
    """Returns every measure by its name.

    The first interval respects groups where the predictions have them. All bootstrap intervals stand on the same
    resamples, and `advance` is told how many more are done.
    """
    cases = Cases.unweighted(predictions.label, predictions.probability, threshold)
    clusters = predictions.clusters()
    resampled = bootstrap_values(
        cases,
        clusters,
        {name: entry.parts or entry.values for name, entry in measures.items()},
        resamples=confidence.resamples,
        seed=confidence.seed,
        advance=advance,
    )
    grouped = predictions.has_groups
    results = {}
    for name, entry in measures.items():
        value = float(entry.values(cases)[0])
        undefined = bool(np.isnan(value))
        intervals = [] if undefined else _intervals(entry, cases, resampled[name], clusters, grouped, confidence.level)
        results[name] = Measured(
            title=entry.metric.title,
            value=None if undefined else value,
            undefined=entry.metric.undefined if undefined else None,
            intervals=tuple(interval for interval in intervals if interval is not None),
        )
    return results


def _intervals(
    entry: Measure, cases: Cases, resampled: np.ndarray, clusters: np.ndarray, grouped: bool, level: float
) -> list[Interval | None]:
    """Returns the intervals of one measure, the one to show first."""
    method = "group bootstrap" if grouped else "bootstrap"
    if entry.parts is not None:
        return [absolute_sum_interval(entry.parts(cases)[0], resampled, level, method)]
    bootstrap = percentile_interval(resampled, float(entry.values(cases)[0]), level, method)
    own = entry.cases(cases)
    kept = clusters if entry.rows is None else clusters[entry.rows]
    if entry.metric is METRICS["roc_auc"]:
        delong = auc_interval(own.label, own.probability, level=level)
        if not grouped:
            return [delong, bootstrap]
        return [auc_interval(own.label, own.probability, kept, level), bootstrap, delong]
    if entry.metric.proportion is not None:
        counted, among = entry.metric.proportion(own)
        right, weights = counted[among], own.weights[0][among]
        # a Wilson interval of images would take weighted ones for whole ones
        of_images = wilson_interval(float(right.sum()), len(right), level) if entry.weights is None else None
        if not grouped:
            return [of_images, bootstrap]
        return [wilson_interval_of_groups(right, kept[among], weights, level), bootstrap, of_images]
    return [bootstrap]
