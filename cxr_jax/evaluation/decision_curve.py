"""Net benefit: is acting on the network's calls better than treating everybody or nobody?"""

from __future__ import annotations

import dataclasses

import numpy as np

from cxr_jax.evaluation.cases import Cases, divide

THRESHOLDS = np.arange(1, 100) / 100
"""Threshold probabilities of a report's curve."""


def net_benefit(cases: Cases) -> np.ndarray:
    """Returns float64 [R]: true positives less false positives weighted by the odds of the threshold, per image.

    Vickers & Elkin, Medical Decision Making 2006. The threshold, above 0 and below 1, is the probability of PNEUMONIA
    at which somebody would just act: at 0.2, one missed pneumonia weighs as much as four false alarms.
    """
    odds = cases.threshold / (1 - cases.threshold)
    counts = cases.confusion
    return divide(counts.true_positives - odds * counts.false_positives, cases.total)


def decision_curve(label: np.ndarray, probability: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> list[float]:
    """Returns the net benefit of calling by these probabilities [N], at every threshold."""
    cases = Cases.unweighted(label, probability)
    return [float(net_benefit(dataclasses.replace(cases, threshold=float(t)))[0]) for t in thresholds]


def treat_all_curve(label: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> list[float]:
    """Returns the net benefit of calling every image PNEUMONIA, at every threshold; calling none has benefit 0."""
    return decision_curve(label, np.ones(len(label)), thresholds)
