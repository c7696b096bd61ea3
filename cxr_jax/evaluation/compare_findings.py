"""Two programs that told the same findings on the same images: paired differences, finding by finding and together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.finding_cases import FINDING_METRICS, FindingCases
from cxr_jax.evaluation.intervals import Interval, bootstrap_values, percentile_interval
from cxr_jax.evaluation.metrics import METRICS, average_precision
from cxr_jax.evaluation.paired import bootstrap_p_value, compare_auc, holm
from cxr_jax.runs.finding_predictions import FindingPredictions

TOGETHER = ("macro_roc_auc", "micro_roc_auc", "macro_average_precision", "micro_average_precision")
"""Metrics of all findings together that are compared; none depends on a threshold."""


@dataclass(frozen=True)
class PairedMetric:
    """A metric of both programs and the difference, first minus second; None where it is undefined.

    Attributes:
        title: what the metric is called.
        first: of the first program.
        second: of the second.
        interval: of the difference, over groups where they are known.
        p_value: two-sided, that there is no difference on other patients.
        adjusted: the p-value adjusted by Holm's method for as many findings; None of findings together.
    """

    title: str
    first: float | None
    second: float | None
    interval: Interval | None
    p_value: float | None
    adjusted: float | None = None

    @property
    def difference(self) -> float | None:
        """First minus second."""
        return None if self.first is None or self.second is None else self.first - self.second


@dataclass(frozen=True)
class FindingComparison:
    """The comparison of two programs.

    Attributes:
        first: name of the first program.
        second: name of the second.
        images: how many there are.
        groups: how many, None if unknown.
        confidence: how intervals were computed.
        together: the metrics of all findings together, by name.
        findings: roc_auc and average_precision of each finding.
    """

    first: str
    second: str
    images: int
    groups: int | None
    confidence: Confidence
    together: dict[str, PairedMetric]
    findings: dict[str, dict[str, PairedMetric]]


@dataclass(frozen=True)
class _Pair:
    """The probabilities of both programs on the same labels, under the same weightings."""

    label: np.ndarray  # [N, K]
    first: np.ndarray  # [N, K]
    second: np.ndarray  # [N, K]
    weights: np.ndarray  # [R, N]

    @cached_property
    def cases(self) -> tuple[FindingCases, FindingCases]:
        """Those of each program; no metric that is compared looks at thresholds."""
        thresholds = np.zeros(self.label.shape[1])
        first, second = (FindingCases(self.label, p, thresholds, self.weights) for p in (self.first, self.second))
        return first, second

    def of_finding(self, index: int) -> tuple[Cases, Cases]:
        """Returns the known rows of one finding, for each program."""
        rows = ~np.isnan(self.label[:, index])
        label, weights = (self.label[rows, index] == 1).astype(int), self.weights[:, rows]
        first, second = (Cases(label, p[rows, index], 0.5, weights) for p in (self.first, self.second))
        return first, second


def compare_findings(
    tables: Mapping[str, FindingPredictions],
    confidence: Confidence | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> FindingComparison:
    """Compares two programs, given as their predictions by name, on the images and labels that they share.

    ROC-AUC of a finding is tested by `compare_auc` on the images of which it is known, all else by a bootstrap of
    groups with equal draws for both. `advance` is told how many more of `confidence.resamples` are done.

    Raises:
        UserError: the tables are of other images, findings or labels.
    """
    confidence = confidence or Confidence()
    (first_name, first), (second_name, second) = tables.items()
    second = _aligned(first, second, first_name, second_name)
    pair = _Pair(first.label, first.probabilities, second.probabilities, np.ones((1, len(first))))
    clusters = first.clusters()
    ranked = [index for index, name in enumerate(first.classes) if len(np.unique(first.asked(name)[1])) > 1]
    measures: dict[object, Callable[[_Pair], np.ndarray]] = {}
    for name in TOGETHER:
        measures[name] = _difference(lambda cases, name=name: FINDING_METRICS[name].function(cases))
    for index in ranked:
        measures[index] = lambda pair, index=index: np.subtract(*map(average_precision, pair.of_finding(index)))
    resampled = bootstrap_values(
        pair, clusters, measures, resamples=confidence.resamples, seed=confidence.seed, advance=advance
    )
    method = "group bootstrap" if first.has_groups else "bootstrap"

    def bootstrapped(title: str, key: object, values: tuple[np.ndarray, np.ndarray]) -> PairedMetric:
        one, other = (float(value[0]) for value in values)
        if np.isnan([one, other]).any():
            return PairedMetric(title, None, None, None, None)
        interval = percentile_interval(resampled[key], one - other, confidence.level, method)
        return PairedMetric(title, one, other, interval, bootstrap_p_value(resampled[key]))

    together = {
        name: bootstrapped(
            FINDING_METRICS[name].title, name, tuple(FINDING_METRICS[name].function(cases) for cases in pair.cases)
        )
        for name in TOGETHER
    }
    findings = {}
    for index in ranked:
        rows = first.asked(first.classes[index])[0]
        areas = _areas(pair, index, clusters[rows] if first.has_groups else None, confidence.level)
        precision = tuple(map(average_precision, pair.of_finding(index)))
        title = METRICS["average_precision"].title
        findings[first.classes[index]] = {
            "roc_auc": areas,
            "average_precision": bootstrapped(title, index, precision),
        }
    groups = len(set(first.group)) if first.has_groups else None
    return FindingComparison(first_name, second_name, len(first), groups, confidence, together, _adjusted(findings))


def _difference(metric: Callable[[FindingCases], np.ndarray]) -> Callable[[_Pair], np.ndarray]:
    return lambda pair: np.subtract(*map(metric, pair.cases))


def _areas(pair: _Pair, index: int, clusters: np.ndarray | None, level: float) -> PairedMetric:
    """Returns the ROC-AUCs of one finding and the test of their difference."""
    metric = METRICS["roc_auc"]
    first, second = pair.of_finding(index)
    tested = compare_auc(first.label, first.probability[None], second.probability[None], clusters, level)
    areas = (float(metric.function(cases)[0]) for cases in (first, second))
    return PairedMetric(metric.title, *areas, *((None, None) if tested is None else (tested.interval, tested.p_value)))


def _adjusted(findings: dict[str, dict[str, PairedMetric]]) -> dict[str, dict[str, PairedMetric]]:
    """Returns the metrics of findings with p-values adjusted by Holm's method, each metric by itself."""
    adjusted = {name: dict(metrics) for name, metrics in findings.items()}
    for metric in ("roc_auc", "average_precision"):
        tested = [name for name in findings if findings[name][metric].p_value is not None]
        for name, value in zip(tested, holm([findings[name][metric].p_value for name in tested]), strict=True):
            adjusted[name][metric] = replace(findings[name][metric], adjusted=value)
    return adjusted


def _aligned(
    first: FindingPredictions, second: FindingPredictions, first_name: str, second_name: str
) -> FindingPredictions:
    """Returns the second table with its images and findings in the order of the first; UserError if they differ."""
    if set(first.classes) != set(second.classes):
        odd = sorted(set(first.classes) ^ set(second.classes))
        raise UserError(f"{first_name} and {second_name} are of different findings: {', '.join(odd)} is in one alone")
    if set(first.file) != set(second.file):
        odd = sorted(set(first.file) ^ set(second.file))
        raise UserError(
            f"{first_name} and {second_name} are of different images: {odd[0]} and {len(odd) - 1:,} more are in one "
            "alone"
        )
    place = {file: row for row, file in enumerate(second.file)}
    rows = np.array([place[file] for file in first.file])
    columns = [second.classes.index(name) for name in first.classes]
    logits = None if second.logits is None else second.logits[rows][:, columns]
    moved = replace(
        second.select(rows),
        classes=first.classes,
        label=second.label[rows][:, columns],
        probabilities=second.probabilities[rows][:, columns],
        logits=logits,
    )
    unlike = ~((moved.label == first.label) | (np.isnan(moved.label) & np.isnan(first.label)))
    if unlike.any():
        row, column = (int(index) for index in np.argwhere(unlike)[0])
        raise UserError(
            f"{first_name} and {second_name} have different labels of {first.classes[column]} for {first.file[row]}: "
            "compare on the same labels"
        )
    return moved
