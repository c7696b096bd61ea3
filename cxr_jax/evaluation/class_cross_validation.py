"""What cross-validation says of classes other than NORMAL and PNEUMONIA, or of findings.

As with two classes, the folds' own figures rank images of one network alone, and those of all held-out predictions
together rank images of different networks against each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.class_judgement import JudgedClassSplit
from cxr_jax.evaluation.class_points import ClassPoints
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge_classes import judge_split, measured_together
from cxr_jax.evaluation.measures import Measured
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.vocabulary import FINDINGS, Kind

OF_CLASSES = ("macro_roc_auc", "accuracy", "balanced_accuracy", "macro_f1")
OF_FINDINGS = ("macro_roc_auc", "macro_average_precision", "macro_f1")
"""Metrics that are told of every fold."""


@dataclass(frozen=True)
class HeldOutClasses:
    """Figures of one fold, by the network that did not see it.

    Attributes:
        images: how many there are.
        groups: how many, None if unknown.
        metrics: those of `OF_CLASSES` or `OF_FINDINGS`; calls are at the points of all folds together.
    """

    images: int
    groups: int | None
    metrics: dict[str, Measured]


@dataclass(frozen=True)
class ClassCrossValidation:
    """The judgement of the held-out predictions of all folds.

    Attributes:
        kind_of_classes: whether they exclude each other, or are findings.
        confidence: how intervals were computed.
        points: chosen by the config's rule on all held-out predictions together.
        folds: of each fold.
        pooled: of all folds together, each class too.
    """

    kind_of_classes: Kind
    confidence: Confidence
    points: ClassPoints
    folds: tuple[HeldOutClasses, ...]
    pooled: JudgedClassSplit

    @property
    def told(self) -> tuple[str, ...]:
        """Names of the metrics that are told of every fold."""
        return OF_FINDINGS if self.kind_of_classes == FINDINGS else OF_CLASSES


def resamples_of_folds(folds: int, classes: int, confidence: Confidence) -> int:
    """Returns how many resamples `judge_class_folds` makes."""
    return confidence.resamples * (folds + 1 + classes)


def judge_class_folds(
    folds: Sequence[ClassProbabilities],
    everything: ClassProbabilities,
    points: ClassPoints,
    confidence: Confidence | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> ClassCrossValidation:
    """Returns the judgement of the held-out predictions of every fold.

    Args:
        folds: of each fold, one table.
        everything: their rows together.
        points: the operating points of all of them.
        confidence: level, resamples and seed of the intervals.
        advance: told how many more resamples are done; there are `resamples_of_folds`.
    """
    confidence = confidence or Confidence()
    told = OF_FINDINGS if everything.KIND == FINDINGS else OF_CLASSES

    def held_out(table: ClassProbabilities) -> HeldOutClasses:
        measured = measured_together(table, points, confidence, advance)
        groups = len(set(table.group)) if table.has_groups else None
        return HeldOutClasses(len(table), groups, {name: measured[name] for name in told})

    return ClassCrossValidation(
        kind_of_classes=everything.KIND,
        confidence=confidence,
        points=points,
        folds=tuple(held_out(table) for table in folds),
        pooled=judge_split(everything, points, confidence, advance),
    )


def joined_classes(tables: Sequence[ClassProbabilities]) -> ClassProbabilities:
    """Returns the rows of all tables, which have logits, one after the other; ValueError if a file is in two."""
    first = tables[0]
    texts = {name: tuple(value for table in tables for value in getattr(table, name)) for name in first.TEXTS}
    arrays = {name: np.concatenate([getattr(table, name) for table in tables]) for name in (*first.ARRAYS, "logits")}
    return dataclasses.replace(first, **texts, **arrays)
