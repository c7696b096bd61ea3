"""What cross-validation says: figures of every fold, of all held-out predictions together, and both kinds of ROC-AUC.

The networks of different folds may put the same image at different probabilities. The ROC-AUC of all held-out
predictions together ranks images of different networks against each other; the mean of the folds' own does not. The
first is about the one threshold that all share, the second about how well one network ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import area_interval, obuchowski_covariance
from cxr_jax.evaluation.measures import Measure, Measured, measure
from cxr_jax.evaluation.metrics import METRICS
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import CLASS_NAMES

SCHEMA_VERSION = 1
"""Version of crossval.json."""

JUDGED = ("roc_auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class HeldOut:
    """Figures of predictions by networks that did not see the images.

    Attributes:
        images: how many there are.
        groups: how many, None if unknown.
        classes: images of each class.
        metrics: the metrics of `JUDGED`; calls are at the operating point of all folds together.
    """

    images: int
    groups: int | None
    classes: dict[str, int]
    metrics: dict[str, Measured]


@dataclass(frozen=True)
class CrossValidation:
    """The judgement of the held-out predictions of all folds.

    Attributes:
        confidence: how intervals were computed.
        operating_point: chosen by the config's rule on all held-out predictions together.
        folds: of each fold, by the network that did not see it.
        pooled: of all folds together.
        mean_roc_auc: the mean of the folds' own.
    """

    confidence: Confidence
    operating_point: OperatingPoint
    folds: tuple[HeldOut, ...]
    pooled: HeldOut
    mean_roc_auc: Measured


def judge_folds(
    folds: Sequence[Predictions],
    point: OperatingPoint,
    confidence: Confidence | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> CrossValidation:
    """Returns the judgement of the held-out predictions of every fold.

    Args:
        folds: of each fold, one table.
        point: the operating point of all of them.
        confidence: level, resamples and seed of the intervals.
        advance: told how many more resamples are done; there are those of `confidence` for each fold and for all.
    """
    confidence = confidence or Confidence()

    def held_out(table: Predictions) -> HeldOut:
        measures = {name: Measure(METRICS[name]) for name in JUDGED}
        return HeldOut(
            images=len(table),
            groups=len(set(table.group)) if table.has_groups else None,
            classes={name: int(np.sum(table.label == index)) for index, name in enumerate(CLASS_NAMES)},
            metrics=measure(table, point.threshold, measures, confidence, advance),
        )

    return CrossValidation(
        confidence=confidence,
        operating_point=point,
        folds=tuple(held_out(table) for table in folds),
        pooled=held_out(joined(folds)),
        mean_roc_auc=mean_roc_auc(folds, confidence.level),
    )


def mean_roc_auc(folds: Sequence[Predictions], level: float) -> Measured:
    """Returns the mean of the ROC-AUC of every fold, for which images of one fold alone are ranked.

    Its interval is for other patients judged by these networks: by Obuchowski's variance of every fold, no group being
    in two. Every fold needs two groups of each class to have one.
    """
    title = f"Mean ROC-AUC of {len(folds)} folds"
    try:
        found = [obuchowski_covariance(table.label, table.probability, table.clusters()) for table in folds]
    except ValueError:
        return Measured(title, None, "a fold has fewer than two groups of a class", ())
    area = float(np.mean([areas[0] for areas, _ in found]))
    variance = float(np.sum([covariance[0, 0] for _, covariance in found])) / len(folds) ** 2
    interval = area_interval(area, variance, "Obuchowski within folds", level)
    return Measured(title, area, None, () if interval is None else (interval,))


def joined(tables: Sequence[Predictions]) -> Predictions:
    """Returns the rows of all tables, one after the other; ValueError if a file is in two."""
    logits = (
        None if any(table.logits is None for table in tables) else np.concatenate([table.logits for table in tables])
    )
    columns = {
        name: tuple(value for table in tables for value in getattr(table, name))
        for name in ("file", "split", "group", "subtype")
    }
    return Predictions(
        **columns,
        label=np.concatenate([table.label for table in tables]),
        logits=logits,
        probability=np.concatenate([table.probability for table in tables]),
    )
