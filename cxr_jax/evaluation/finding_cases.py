"""Labelled probabilities of K findings under many weightings at once, as `Cases` are of one, and their metrics.

A row is left out for a finding of which nobody knows. Macro is the mean over the findings that are both present and
absent in the images; micro pools all known labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cxr_jax.evaluation.cases import Cases, divide
from cxr_jax.evaluation.class_metrics import ClassMetric
from cxr_jax.evaluation.metrics import average_precision, f1, roc_auc, sensitivity, specificity
from cxr_jax.runs.finding_predictions import FindingPredictions


@dataclass(frozen=True)
class FindingCases:
    """N rows of probabilities and labels of K findings, and R weightings of the images.

    Attributes:
        label: float [N, K]: 1 present, 0 absent, NaN unknown.
        probabilities: float64 [N, K].
        thresholds: float64 [K], from which each is called.
        weights: float64 [R, N], zero or more.
    """

    label: np.ndarray
    probabilities: np.ndarray
    thresholds: np.ndarray
    weights: np.ndarray

    @classmethod
    def unweighted(cls, predictions: FindingPredictions, thresholds: Mapping[str, float]) -> FindingCases:
        """Returns the images themselves: one weighting, every weight 1."""
        chosen = np.array([thresholds[name] for name in predictions.classes])
        return cls(predictions.label, predictions.probabilities, chosen, np.ones((1, len(predictions))))

    @cached_property
    def known(self) -> np.ndarray:
        """Mask [N, K] of the labels that are known."""
        return ~np.isnan(self.label)

    @cached_property
    def ranked(self) -> tuple[Cases, ...]:
        """The known rows of each finding that is both present and absent in them, at its threshold."""
        found = []
        for k in range(self.label.shape[1]):
            rows = self.known[:, k]
            label = (self.label[rows, k] == 1).astype(int)
            if len(np.unique(label)) > 1:
                threshold = float(self.thresholds[k])
                found.append(Cases(label, self.probabilities[rows, k], threshold, self.weights[:, rows]))
        return tuple(found)

    @cached_property
    def pooled(self) -> Cases:
        """All known labels as cases of one kind."""
        return self._pooled(self.probabilities)

    @cached_property
    def pooled_calls(self) -> Cases:
        """All known labels, each with its call at the threshold of its finding as a probability of 0 or 1."""
        return self._pooled((self.probabilities >= self.thresholds).astype(np.float64))

    def _pooled(self, probabilities: np.ndarray) -> Cases:
        rows = np.nonzero(self.known)
        return Cases((self.label[rows] == 1).astype(int), probabilities[rows], 0.5, self.weights[:, rows[0]])


def _macro(metric: Callable[[Cases], np.ndarray]) -> Callable[[FindingCases], np.ndarray]:
    """Returns the mean of a metric over the findings that are both present and absent."""

    def mean(cases: FindingCases) -> np.ndarray:
        if not cases.ranked:
            return np.full(len(cases.weights), np.nan)
        return np.mean([metric(of_finding) for of_finding in cases.ranked], axis=0)

    return mean


def brier(cases: FindingCases) -> np.ndarray:
    """Returns the mean over known labels of the squared difference of probability and label (Brier 1950)."""
    pooled = cases.pooled
    return pooled.mean_of((pooled.probability - pooled.label) ** 2)


def log_loss(cases: FindingCases) -> np.ndarray:
    """Returns the mean over known labels of the negative logarithm of the probability of what is true.

    Probabilities are kept a float64 epsilon away from 0.
    """
    pooled = cases.pooled
    of_truth = np.where(pooled.label == 1, pooled.probability, 1 - pooled.probability)
    return pooled.mean_of(-np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1)))


def accuracy(cases: FindingCases) -> np.ndarray:
    """Returns the share of known labels that are called what they are, each at the threshold of its finding."""
    calls = cases.pooled_calls
    return divide(calls.weight_of((calls.probability >= 0.5) == (calls.label == 1)), calls.total)


_NONE_RANKED = "no finding is both present and absent"
_NONE_KNOWN = "no label is known"

FINDING_METRICS: dict[str, ClassMetric] = {
    "macro_roc_auc": ClassMetric("ROC-AUC, macro", _macro(roc_auc), _NONE_RANKED),
    "micro_roc_auc": ClassMetric("ROC-AUC, micro", lambda cases: roc_auc(cases.pooled), _NONE_RANKED),
    "macro_average_precision": ClassMetric(
        "PR-AUC (average precision), macro", _macro(average_precision), _NONE_RANKED
    ),
    "micro_average_precision": ClassMetric(
        "PR-AUC (average precision), micro", lambda cases: average_precision(cases.pooled), _NONE_RANKED
    ),
    "macro_sensitivity": ClassMetric("Sensitivity at the thresholds, macro", _macro(sensitivity), _NONE_RANKED),
    "macro_specificity": ClassMetric("Specificity at the thresholds, macro", _macro(specificity), _NONE_RANKED),
    "macro_f1": ClassMetric("F1 at the thresholds, macro", _macro(f1), _NONE_RANKED),
    "micro_f1": ClassMetric("F1 at the thresholds, micro", lambda cases: f1(cases.pooled_calls), _NONE_KNOWN),
    "accuracy": ClassMetric("Right calls of findings at the thresholds", accuracy, _NONE_KNOWN),
    "brier": ClassMetric("Brier score, mean over labels", brier, _NONE_KNOWN),
    "log_loss": ClassMetric("Log-loss, mean over labels", log_loss, _NONE_KNOWN, bounds=(0.0, np.inf)),
}
"""Every metric of all findings together, in the order of a report."""
