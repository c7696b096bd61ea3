"""The metrics: one function each, PNEUMONIA being the positive class.

Each takes `Cases` and returns float64 [R], one value a weighting, NaN where it is undefined; `METRICS` names them all
and says why a value can be undefined. Each docstring names who defined the metric; which metrics belong together in a
report follows Maier-Hein et al., Metrics reloaded, Nature Methods 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.cases import Cases, divide


def accuracy(cases: Cases) -> np.ndarray:
    """Returns the share of images that are called what they are (Maier-Hein et al., Nature Methods 2024)."""
    counts = cases.confusion
    return divide(counts.true_positives + counts.true_negatives, cases.total)


def sensitivity(cases: Cases) -> np.ndarray:
    """Returns the share of PNEUMONIA images that are called so, or recall, true-positive rate (Yerushalmy 1947)."""
    counts = cases.confusion
    return divide(counts.true_positives, counts.true_positives + counts.false_negatives)


def specificity(cases: Cases) -> np.ndarray:
    """Returns the share of NORMAL images that are called so; also named true-negative rate (Yerushalmy 1947)."""
    counts = cases.confusion
    return divide(counts.true_negatives, counts.true_negatives + counts.false_positives)


def precision(cases: Cases) -> np.ndarray:
    """Returns the share of PNEUMONIA calls that are right, or positive predictive value (Altman & Bland, BMJ 1994)."""
    counts = cases.confusion
    return divide(counts.true_positives, counts.true_positives + counts.false_positives)


def negative_predictive_value(cases: Cases) -> np.ndarray:
    """Returns the share of NORMAL calls that are right (Altman & Bland, BMJ 1994)."""
    counts = cases.confusion
    return divide(counts.true_negatives, counts.true_negatives + counts.false_negatives)


def balanced_accuracy(cases: Cases) -> np.ndarray:
    """Returns the mean of sensitivity and specificity (Brodersen et al., ICPR 2010)."""
    return (sensitivity(cases) + specificity(cases)) / 2


def f1(cases: Cases) -> np.ndarray:
    """Returns the harmonic mean of precision and sensitivity: 2 TP / (2 TP + FP + FN) (van Rijsbergen 1979)."""
    counts = cases.confusion
    twice = 2 * counts.true_positives
    return divide(twice, twice + counts.false_positives + counts.false_negatives)


def matthews_correlation(cases: Cases) -> np.ndarray:
    """Returns the correlation of calls and labels (Matthews, BBA 1975), -1 to 1."""
    counts = cases.confusion
    tp, tn, fp, fn = counts.true_positives, counts.true_negatives, counts.false_positives, counts.false_negatives
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return divide(tp * tn - fp * fn, np.sqrt(product))


def roc_auc(cases: Cases) -> np.ndarray:
    """Returns the probability that a PNEUMONIA image scores above a NORMAL one, ties as half (Hanley & McNeil 1982)."""
    curve = cases.curve
    normals = curve.negatives.sum(axis=1)
    below = normals[:, None] - curve.called_negatives
    pairs = np.sum(curve.positives * (below + curve.negatives / 2), axis=1)
    return divide(pairs, curve.positives.sum(axis=1) * normals)


def average_precision(cases: Cases) -> np.ndarray:
    """Returns the area under the precision-recall curve, as the sum of precisions weighted by steps of recall.

    No interpolation between points (Davis & Goadrich, ICML 2006; the `average_precision_score` of scikit-learn).
    """
    curve = cases.curve
    called = curve.called_positives + curve.called_negatives
    # A resample may give no weight to the highest scores; nothing is called there and nothing is added.
    precisions = np.nan_to_num(divide(curve.called_positives, called))
    return divide(np.sum(curve.positives * precisions, axis=1), curve.positives.sum(axis=1))


def brier(cases: Cases) -> np.ndarray:
    """Returns the mean squared difference of probability and label (Brier 1950); 0 is best."""
    return cases.mean_of((cases.probability - cases.label) ** 2)


def log_loss(cases: Cases) -> np.ndarray:
    """Returns the mean negative log-likelihood, natural logarithm (Good, JRSS B 1952); 0 is best.

    Probabilities are kept a float64 epsilon away from 0 and 1.
    """
    epsilon = np.finfo(np.float64).eps
    of_truth = np.where(cases.positive, cases.probability, 1 - cases.probability)
    return cases.mean_of(-np.log(np.clip(of_truth, epsilon, 1 - epsilon)))


def specificity_at_sensitivity(cases: Cases, target: float) -> np.ndarray:
    """Returns the highest specificity of thresholds whose sensitivity is at least `target`, read off the ROC as steps.

    Maier-Hein et al., Nature Methods 2024, "Specificity@Sensitivity".
    """
    curve = cases.curve
    positives = curve.positives.sum(axis=1)
    normals = curve.negatives.sum(axis=1)
    reached = _reaches(curve.called_positives, positives[:, None], target)
    # Thresholds fall along the axis, so the first that reaches the target has the highest specificity.
    first = np.argmax(reached, axis=1)[:, None]
    called = np.take_along_axis(curve.called_negatives, first, axis=1)[:, 0]
    return np.where(positives > 0, divide(normals - called, normals), np.nan)


def threshold_at_sensitivity(cases: Cases, target: float) -> float:
    """Returns the highest probability that, as threshold, reaches the sensitivity; for cases of one weighting.

    Raises:
        ValueError: there is no PNEUMONIA image.
    """
    threshold = float(thresholds_at_sensitivity(cases, target)[0])
    if np.isnan(threshold):
        raise ValueError("no image is PNEUMONIA")
    return threshold


def thresholds_at_sensitivity(cases: Cases, target: float) -> np.ndarray:
    """Returns float64 [R]: the highest probability that reaches the sensitivity as threshold, NaN without PNEUMONIA."""
    curve = cases.curve
    positives = curve.positives.sum(axis=1)
    first = np.argmax(_reaches(curve.called_positives, positives[:, None], target), axis=1)
    return np.where(positives > 0, curve.thresholds[first], np.nan)


def _reaches(called: np.ndarray, positives: np.ndarray, target: float) -> np.ndarray:
    """Returns True where `called` of the positives are at least the target share, rounding forgiven."""
    return called >= target * positives - 1e-9 * positives


@dataclass(frozen=True)
class Metric:
    """A metric with what a reader needs: its title, its function, why it may be undefined, and its kind.

    `proportion` returns the masks [N] of the images in the numerator and in the denominator, for the metrics that are
    shares of images and so have a Wilson interval. `parts` are float64 [R, B], for a metric that is the sum of their
    absolute values and so has an interval of its own kind. `bounds` are the lowest and the highest value.
    """

    title: str
    function: Callable[[Cases], np.ndarray]
    undefined: str
    proportion: Callable[[Cases], tuple[np.ndarray, np.ndarray]] | None = None
    parts: Callable[[Cases], np.ndarray] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)


def _share(
    numerator: tuple[str, ...], denominator: tuple[str, ...]
) -> Callable[[Cases], tuple[np.ndarray, np.ndarray]]:
    def masks(cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.any([cases.met(name) for name in names], axis=0) for names in (numerator, denominator))

    return masks


_TP, _TN, _FP, _FN = "true_positives", "true_negatives", "false_positives", "false_negatives"
_ONE_CLASS = "the images are of one class only"

METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", accuracy, "there is no image", _share((_TP, _TN), (_TP, _TN, _FP, _FN))),
    "balanced_accuracy": Metric("Balanced accuracy", balanced_accuracy, _ONE_CLASS),
    "sensitivity": Metric("Sensitivity (recall)", sensitivity, "no image is PNEUMONIA", _share((_TP,), (_TP, _FN))),
    "specificity": Metric("Specificity", specificity, "no image is NORMAL", _share((_TN,), (_TN, _FP))),
    "precision": Metric("Precision (PPV)", precision, "no image is called PNEUMONIA", _share((_TP,), (_TP, _FP))),
    "negative_predictive_value": Metric(
        "Negative predictive value", negative_predictive_value, "no image is called NORMAL", _share((_TN,), (_TN, _FN))
    ),
    "f1": Metric("F1", f1, "no image is PNEUMONIA or called so"),
    "matthews_correlation": Metric(
        "Matthews correlation",
        matthews_correlation,
        "the images or the calls are of one class only",
        bounds=(-1.0, 1.0),
    ),
    "roc_auc": Metric("ROC-AUC", roc_auc, _ONE_CLASS),
    "average_precision": Metric("PR-AUC (average precision)", average_precision, "no image is PNEUMONIA"),
    "brier": Metric("Brier score", brier, "there is no image"),
    "log_loss": Metric("Log-loss", log_loss, "there is no image", bounds=(0.0, np.inf)),
}
"""Every metric of a report, in its order."""

THRESHOLD_FREE = ("roc_auc", "average_precision", "brier", "log_loss")
"""Metrics of the probabilities themselves."""

CALL_METRICS = tuple(name for name in METRICS if name not in THRESHOLD_FREE)
"""The metrics of the calls, which change with the threshold."""


def metric_value(name: str, cases: Cases) -> float | None:
    """Returns the metric of that name for cases of one weighting; None where it is undefined."""
    value = float(METRICS[name].function(cases)[0])
    return None if np.isnan(value) else value


def confusion_matrix(label: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Returns int [2, 2]: rows are the true class, columns the called class, both in the order of `CLASS_NAMES`."""
    counts = Cases.unweighted(label, probability, threshold).confusion
    flat = (counts.true_negatives, counts.false_positives, counts.false_negatives, counts.true_positives)
    return np.array([int(count[0]) for count in flat]).reshape(2, 2)


def roc_curve(label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns false-positive rate, sensitivity and threshold, float64 [U + 1] each, from the highest threshold down.

    The first point is (0, 0) at threshold infinity. Both classes must occur.
    """
    curve = Cases.unweighted(label, probability).curve
    false_positive_rate = curve.called_negatives[0] / curve.called_negatives[0, -1]
    sensitivities = curve.called_positives[0] / curve.called_positives[0, -1]
    return np.r_[0, false_positive_rate], np.r_[0, sensitivities], np.r_[np.inf, curve.thresholds]


def precision_recall_curve(label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns precision, recall and threshold, float64 [U] each, from the highest threshold down.

    PNEUMONIA must occur.
    """
    curve = Cases.unweighted(label, probability).curve
    called = curve.called_positives[0] + curve.called_negatives[0]
    return (
        curve.called_positives[0] / called,
        curve.called_positives[0] / curve.called_positives[0, -1],
        curve.thresholds,
    )
