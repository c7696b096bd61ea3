"""The metrics of K exclusive classes: one function each, of `ClassCases`, with one value a weighting.

Macro is the mean over the classes, whatever their sizes; micro pools the questions whether an image is of a class.
Where a class has no image a macro mean is undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.calibration import calibration_gaps, expected_calibration_error
from cxr_jax.evaluation.cases import divide
from cxr_jax.evaluation.class_cases import ClassCases
from cxr_jax.evaluation.metrics import average_precision, roc_auc

BINS = 15
"""Of equal width, of the calibration error."""


def accuracy(cases: ClassCases) -> np.ndarray:
    """Returns the share of images that are called what they are."""
    return divide(np.trace(cases.confusion, axis1=1, axis2=2), cases.total)


def balanced_accuracy(cases: ClassCases) -> np.ndarray:
    """Returns the mean over the classes of the share that is called so (Brodersen et al., ICPR 2010)."""
    right = np.diagonal(cases.confusion, axis1=1, axis2=2)
    return divide(right, cases.confusion.sum(axis=2)).mean(axis=1)


def macro_f1(cases: ClassCases) -> np.ndarray:
    """Returns the mean over the classes of F1, 2 TP / (2 TP + FP + FN)."""
    right = np.diagonal(cases.confusion, axis1=1, axis2=2)
    return divide(2 * right, cases.confusion.sum(axis=2) + cases.confusion.sum(axis=1)).mean(axis=1)


def matthews_correlation(cases: ClassCases) -> np.ndarray:
    """Returns the correlation of calls and labels of K classes (Gorodkin, Computational Biology and Chemistry 2004)."""
    right, total = np.trace(cases.confusion, axis1=1, axis2=2), cases.total
    true, called = cases.confusion.sum(axis=2), cases.confusion.sum(axis=1)
    covariance = right * total - np.sum(true * called, axis=1)
    spreads = (total**2 - np.sum(true**2, axis=1)) * (total**2 - np.sum(called**2, axis=1))
    return divide(covariance, np.sqrt(spreads))


def macro_roc_auc(cases: ClassCases) -> np.ndarray:
    """Returns the mean ROC-AUC of the classes, each against the rest (Provost & Domingos 2001, equal weights)."""
    return np.mean([roc_auc(of_class) for of_class in cases.against_the_rest], axis=0)


def micro_roc_auc(cases: ClassCases) -> np.ndarray:
    """Returns the ROC-AUC of all questions whether an image is of a class."""
    return roc_auc(cases.pooled)


def macro_average_precision(cases: ClassCases) -> np.ndarray:
    """Returns the mean PR-AUC of the classes, each against the rest."""
    return np.mean([average_precision(of_class) for of_class in cases.against_the_rest], axis=0)


def micro_average_precision(cases: ClassCases) -> np.ndarray:
    """Returns the PR-AUC of all questions whether an image is of a class."""
    return average_precision(cases.pooled)


def brier(cases: ClassCases) -> np.ndarray:
    """Returns the mean over images of the summed squared differences of probabilities and label (Brier 1950).

    It lies between 0, which is best, and 2.
    """
    return cases.mean_of(np.sum((cases.probabilities - np.eye(cases.classes)[cases.label]) ** 2, axis=1))


def log_loss(cases: ClassCases) -> np.ndarray:
    """Returns the mean negative logarithm of the probability of the true class; 0 is best.

    Probabilities are kept a float64 epsilon away from 0.
    """
    of_truth = cases.probabilities[np.arange(len(cases.label)), cases.label]
    return cases.mean_of(-np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1)))


def _confidence_error(cases: ClassCases) -> np.ndarray:
    """Returns the calibration error of the highest probability (Guo et al., ICML 2017)."""
    return expected_calibration_error(cases.confidence, "width", BINS)


@dataclass(frozen=True)
class ClassMetric:
    """A metric with its title and why it may be undefined.

    `parts` are float64 [R, B], for a metric that is the sum of their absolute values. `proportion` returns the masks of
    the images that are counted, and among which, for a share of images, which has a Wilson interval. `bounds` are the
    lowest and the highest value.
    """

    title: str
    function: Callable[[ClassCases], np.ndarray]
    undefined: str = "a class has no image"
    parts: Callable[[ClassCases], np.ndarray] | None = None
    proportion: Callable[[ClassCases], tuple[np.ndarray, np.ndarray]] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)


def _gaps(cases: ClassCases) -> np.ndarray:
    return calibration_gaps(cases.confidence, "width", BINS)


def _right(cases: ClassCases) -> tuple[np.ndarray, np.ndarray]:
    return cases.called == cases.label, np.ones(len(cases.label), bool)


_NO_IMAGE = "there is no image"

CLASS_METRICS: dict[str, ClassMetric] = {
    "accuracy": ClassMetric("Accuracy", accuracy, _NO_IMAGE, proportion=_right),
    "balanced_accuracy": ClassMetric("Balanced accuracy (macro recall)", balanced_accuracy),
    "macro_f1": ClassMetric("F1, macro", macro_f1, "a class has no image and is never called"),
    "matthews_correlation": ClassMetric(
        "Matthews correlation",
        matthews_correlation,
        "the images or the calls are of one class only",
        bounds=(-1.0, 1.0),
    ),
    "macro_roc_auc": ClassMetric("ROC-AUC, macro", macro_roc_auc),
    "micro_roc_auc": ClassMetric("ROC-AUC, micro", micro_roc_auc, _NO_IMAGE),
    "macro_average_precision": ClassMetric("PR-AUC (average precision), macro", macro_average_precision),
    "micro_average_precision": ClassMetric("PR-AUC (average precision), micro", micro_average_precision, _NO_IMAGE),
    "brier": ClassMetric("Brier score, all classes", brier, _NO_IMAGE, bounds=(0.0, 2.0)),
    "log_loss": ClassMetric("Log-loss", log_loss, _NO_IMAGE, bounds=(0.0, np.inf)),
    "calibration_error": ClassMetric(
        f"Calibration error of the call, {BINS} bins of equal width", _confidence_error, _NO_IMAGE, parts=_gaps
    ),
}
"""Every metric of all classes together, in the order of a report."""

OF_PROBABILITIES = ("brier", "log_loss", "calibration_error")
"""The metrics that a temperature changes."""
