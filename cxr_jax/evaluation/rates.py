"""What calls at a fixed threshold are worth on images that it was not fixed on, with intervals over groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.cases import Cases, calls_of
from cxr_jax.evaluation.class_points import against_the_rest
from cxr_jax.evaluation.conformal import SetRule, class_probabilities
from cxr_jax.evaluation.intervals import Interval, auc_interval, wilson_interval, wilson_interval_of_groups
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.predicted_images import PredictedImages
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import FINDINGS, NORMAL, PNEUMONIA

_ONE_CLASS = "the images lack a class"


@dataclass(frozen=True)
class Rates:
    """What a network is worth on some images.

    Attributes:
        roc_auc: of the ranking.
        sensitivity: at the fixed threshold.
        specificity: at the fixed threshold.
        covered: share whose set of possible classes holds their own; None without bounds.
        uncertain: share whose called class is not the only possible one; None without bounds.
        unlike: share beyond the limit of the network's features; None where it tells no distance.
        accuracy: of the highest probability of several exclusive classes; None of one class, and of findings.
    """

    roc_auc: Measured
    sensitivity: Measured
    specificity: Measured
    covered: Measured | None = None
    uncertain: Measured | None = None
    unlike: Measured | None = None
    accuracy: Measured | None = None


def rates_of(
    predictions: Predictions, threshold: float, sets: SetRule | None = None, unlike: np.ndarray | None = None
) -> Rates:
    """Returns what predictions are worth; `unlike` [N] says which images are beyond the features' limit."""
    label = predictions.label
    called = calls_of(predictions.probability, threshold).astype(np.int64)
    doubt: dict[str, Measured] = {}
    if sets is not None:
        held = sets.sets(class_probabilities(predictions.probability))
        rows = np.arange(len(label))
        doubt["covered"] = share_of(predictions, "covered", held[rows, label])
        doubt["uncertain"] = share_of(predictions, "uncertain", ~(held[rows, called] & (held.sum(axis=1) == 1)))
    return Rates(
        _area(predictions),
        share_of(predictions, "Sensitivity", called == PNEUMONIA, label == PNEUMONIA),
        share_of(predictions, "Specificity", called == NORMAL, label == NORMAL),
        **doubt,
        unlike=None if unlike is None else share_of(predictions, "unlike the training images", unlike),
    )


def class_rates_of(
    predictions: Predictions | ClassProbabilities,
    thresholds: float | Mapping[str, float],
    sets: SetRule | None = None,
    unlike: np.ndarray | None = None,
) -> dict[str, Rates]:
    """Returns what predictions of any classes are worth: all together under the empty name, then each by its own.

    NORMAL and PNEUMONIA have one threshold, and no figures by class. Other classes and findings have one each: a class
    is called against the rest, a finding on the images of which it is known. All together are the means over the
    classes, or over the findings that are both present and absent; where a class has no image they are undefined.
    """
    if isinstance(predictions, Predictions):
        return {"": rates_of(predictions, thresholds, sets, unlike)}
    far = None if unlike is None else share_of(predictions, "unlike the training images", unlike)
    each = {name: _of_class(predictions, name, thresholds[name]) for name in predictions.classes}
    counted = list(each.values())
    accuracy = None
    if predictions.KIND == FINDINGS:
        counted = [rates for rates in counted if rates.roc_auc.value is not None]
    else:
        accuracy = share_of(predictions, "Accuracy", predictions.called == predictions.label)
    means = (mean_of([getattr(rates, name) for rates in counted]) for name in ("roc_auc", "sensitivity", "specificity"))
    return {"": Rates(*means, unlike=far, accuracy=accuracy), **each}


def _of_class(predictions: ClassProbabilities, name: str, threshold: float) -> Rates:
    if predictions.asked(name)[0].any():
        return rates_of(against_the_rest(predictions, name), threshold)
    return Rates(*(Measured(title, None, "nobody knows", ()) for title in ("ROC-AUC", "Sensitivity", "Specificity")))


def mean_of(measured: Sequence[Measured]) -> Measured:
    """Returns the mean of measures, which has no interval; undefined where one of them is, or there is none."""
    values = [each.value for each in measured]
    title = f"{measured[0].title}, macro" if measured else "macro"
    if not values or None in values:
        return Measured(title, None, _ONE_CLASS, ())
    return Measured(title, float(np.mean(values)), None, ())


def share_of(
    predictions: PredictedImages, title: str, counted: np.ndarray, among: np.ndarray | None = None
) -> Measured:
    """Returns which share of the images `among` [N], by default all, is `counted` [N], with an interval over groups."""
    chosen = np.ones(len(predictions), bool) if among is None else among
    right, clusters = counted[chosen], predictions.clusters()[chosen]
    if not len(right):
        return Measured(title, None, _ONE_CLASS, ())
    found = (
        wilson_interval_of_groups(right, clusters)
        if predictions.has_groups
        else wilson_interval(float(right.sum()), len(right))
    )
    return Measured(title, float(right.mean()), None, _known(found))


def _area(predictions: Predictions) -> Measured:
    value = metric_value("roc_auc", Cases.unweighted(predictions.label, predictions.probability))
    if value is None:
        return Measured("ROC-AUC", None, _ONE_CLASS, ())
    clusters = predictions.clusters() if predictions.has_groups else None
    return Measured("ROC-AUC", value, None, _known(auc_interval(predictions.label, predictions.probability, clusters)))


def _known(interval: Interval | None) -> tuple[Interval, ...]:
    return () if interval is None else (interval,)
