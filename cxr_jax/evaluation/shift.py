"""Why a network that did well on validation does worse on test: scores that moved, a threshold that moved with them.

Everything here looks at test labels. It explains a result; nothing may be chosen by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.calibration import margins_of
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import LEVEL
from cxr_jax.evaluation.intervals import Interval, auc_interval
from cxr_jax.evaluation.metrics import metric_value, roc_auc
from cxr_jax.runs.predictions import Predictions, probability_of
from cxr_jax.vocabulary import CLASS_NAMES, PNEUMONIA

_COMPARED = ("accuracy", "sensitivity", "specificity", "log_loss", "brier")


@dataclass(frozen=True)
class ScoreShift:
    """How far the scores of one class moved from validation to test; see `score_shift`."""

    higher_on_test: float
    interval: Interval | None
    validation_median: float
    test_median: float


@dataclass(frozen=True)
class SplitDrop:
    """The fall of the balanced accuracy from validation to test, and its two causes; see `split_drop`."""

    validation: float
    test: float
    test_best: float
    total: float
    ranking: float
    operating_point: float


@dataclass(frozen=True)
class PriorCorrection:
    """What knowing the share of PNEUMONIA in test would have gained; see `prior_correction`."""

    validation_share: float
    test_share: float
    before: dict[str, float | None]
    after: dict[str, float | None]


@dataclass(frozen=True)
class Shift:
    """What separates test from validation: scores by class, the fall and its causes, and the share of PNEUMONIA."""

    scores: dict[str, ScoreShift]
    drop: SplitDrop
    prior: PriorCorrection


def diagnose_shift(validation: Predictions, test: Predictions, threshold: float, level: float = LEVEL) -> Shift | None:
    """Returns what separates test from validation; None if either lacks a class."""
    for predictions in (validation, test):
        if len(np.unique(predictions.label)) < len(CLASS_NAMES):
            return None
    return Shift(
        scores={name: score_shift(validation, test, index, level) for index, name in enumerate(CLASS_NAMES)},
        drop=split_drop(validation, test, threshold),
        prior=prior_correction(validation, test, threshold),
    )


def score_shift(validation: Predictions, test: Predictions, label: int, level: float = LEVEL) -> ScoreShift:
    """Returns how far the scores of one class moved from validation to test.

    `higher_on_test` is the probability that an image of test scores above one of validation of the same class, ties
    counting half: 0.5 without shift (Mann & Whitney 1947). Its `interval` respects groups (Obuchowski 1997) and is
    None where it does not exist. `validation_median` and `test_median` are medians of the probability.
    """
    parts = [predictions.select(predictions.label == label) for predictions in (validation, test)]
    split = np.repeat([0, 1], [len(part) for part in parts])
    scores = np.concatenate([margins_of(part) for part in parts])
    grouped = all(part.has_groups for part in parts)
    names = [group or file for part in parts for group, file in zip(part.group, part.file, strict=True)]
    clusters = np.unique(names, return_inverse=True)[1] if grouped else None
    interval = auc_interval(split, scores, clusters, level)
    return ScoreShift(
        higher_on_test=float(roc_auc(Cases.unweighted(split, scores))[0]),
        interval=interval,
        validation_median=float(np.median(parts[0].probability)),
        test_median=float(np.median(parts[1].probability)),
    )


def split_drop(validation: Predictions, test: Predictions, threshold: float) -> SplitDrop:
    """Returns the fall of the balanced accuracy from validation to test, parted into its two causes.

    `ranking` is the fall of the best balanced accuracy that any threshold could reach: classes that are harder to tell
    apart. `operating_point` is the rest: a threshold that sits worse on test than on validation. They add up to
    `total`. Also `validation` and `test`, the balanced accuracies at the threshold, and `test_best`, the best on test.
    The best balanced accuracy is (1 + J) / 2 of Youden's J (Cancer 1950); the parting is this project's own.
    """
    at = [_balanced_accuracy(predictions, threshold) for predictions in (validation, test)]
    best = [_best_balanced_accuracy(predictions) for predictions in (validation, test)]
    return SplitDrop(
        validation=at[0],
        test=at[1],
        test_best=best[1],
        total=at[0] - at[1],
        ranking=best[0] - best[1],
        operating_point=(best[1] - at[1]) - (best[0] - at[0]),
    )


def _balanced_accuracy(predictions: Predictions, threshold: float) -> float:
    return metric_value("balanced_accuracy", Cases.unweighted(predictions.label, predictions.probability, threshold))


def _best_balanced_accuracy(predictions: Predictions) -> float:
    curve = Cases.unweighted(predictions.label, predictions.probability).curve
    sensitivity = curve.called_positives[0] / curve.called_positives[0, -1]
    specificity = 1 - curve.called_negatives[0] / curve.called_negatives[0, -1]
    return float(np.max((sensitivity + specificity) / 2))


def prior_correction(validation: Predictions, test: Predictions, threshold: float) -> PriorCorrection:
    """Returns what knowing test's share of PNEUMONIA would have gained: metrics on test `before` and `after`.

    The odds of every probability are multiplied by the ratio of the odds of the two shares (Saerens, Latinne &
    Decaestecker, Neural Computation 2002), which is right if probabilities are calibrated on validation, and only the
    shares differ and not the images of a class. The share is that of the test labels, as no estimate of it would be.
    """
    shares = [float(np.mean(predictions.label == PNEUMONIA)) for predictions in (validation, test)]
    step = np.log(shares[1] / (1 - shares[1])) - np.log(shares[0] / (1 - shares[0]))
    margins = margins_of(test) + step
    corrected = probability_of(np.stack([np.zeros(len(test)), margins], axis=1))
    before, after = (
        {name: metric_value(name, Cases.unweighted(test.label, probability, threshold)) for name in _COMPARED}
        for probability in (test.probability, corrected)
    )
    return PriorCorrection(validation_share=shares[0], test_share=shares[1], before=before, after=after)
