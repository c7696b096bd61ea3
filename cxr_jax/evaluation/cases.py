"""Labelled probabilities under many weightings at once: the ground on which every metric stands.

A metric of the images themselves is the metric under the weights 1; a bootstrap resample is a weighting by how often
each image was drawn. One definition of a metric therefore serves both, and all resamples are computed together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from cxr_jax.vocabulary import PNEUMONIA


def calls_of(probability: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Returns bool [N]: True where the image is called PNEUMONIA, which is where its probability >= `threshold`.

    With R thresholds, float64 [R], it is bool [R, N]; of a single probability and threshold, one truth.
    """
    return probability >= (threshold if np.ndim(threshold) == 0 else np.expand_dims(threshold, -1))


def confidence_of(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Returns float64 [N] in 0..1: how far each probability lies from the threshold, as a share of what it could.

    A call of PNEUMONIA can lie between the threshold and 1, a call of NORMAL between 0 and the threshold; so errors of
    either kind can be compared at any threshold.
    """
    room = np.where(calls_of(probability, threshold), 1 - threshold, threshold)
    return np.divide(np.abs(probability - threshold), room, out=np.zeros(len(probability)), where=room > 0)


@dataclass(frozen=True)
class Confusion:
    """Weighted counts, float64 [R] each, of the four ways in which call and label can meet."""

    true_negatives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    true_positives: np.ndarray


@dataclass(frozen=True)
class Curve:
    """Weighted counts at every distinct probability, from the highest to the lowest.

    Attributes:
        thresholds: float64 [U], distinct probabilities, falling.
        positives: float64 [R, U], weight of PNEUMONIA images with exactly that probability.
        negatives: float64 [R, U], the same of NORMAL images.
        called_positives: float64 [R, U], weight of PNEUMONIA images with at least that probability.
        called_negatives: float64 [R, U], the same of NORMAL images.
    """

    thresholds: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    called_positives: np.ndarray
    called_negatives: np.ndarray


@dataclass(frozen=True)
class Cases:
    """N labelled probabilities, a threshold, and R weightings of the images.

    Attributes:
        label: int [N], 0 NORMAL, 1 PNEUMONIA.
        probability: float64 [N], of PNEUMONIA.
        threshold: an image is called PNEUMONIA if its probability is at least this; one for all weightings, or one
            for each, float64 [R].
        weights: float64 [R, N], zero or more.
    """

    label: np.ndarray
    probability: np.ndarray
    threshold: float | np.ndarray
    weights: np.ndarray

    @classmethod
    def unweighted(cls, label: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> Cases:
        """Returns the images themselves: one weighting, every weight 1."""
        label, probability = np.asarray(label), np.asarray(probability, dtype=np.float64)
        return cls(label, probability, threshold, np.ones((1, len(label))))

    def at(self, threshold: float) -> Cases:
        """Returns the same images at another threshold; asked again, the same object, whose counts are known."""
        return self._at.setdefault(threshold, replace(self, threshold=threshold))

    @cached_property
    def _at(self) -> dict[float, Cases]:
        return {}

    def where(self, rows: np.ndarray) -> Cases:
        """Returns the images of a mask [N] only, under the same weightings."""
        return Cases(self.label[rows], self.probability[rows], self.threshold, self.weights[:, rows])

    def weight_of(self, rows: np.ndarray) -> np.ndarray:
        """Returns float64 [R]: the summed weight of the images of a mask [N], or of one mask a weighting [R, N]."""
        if rows.ndim == 2:
            return np.sum(self.weights, axis=1, where=rows)
        return self.weights @ rows.astype(np.float64)

    def mean_of(self, values: np.ndarray) -> np.ndarray:
        """Returns float64 [R]: the weighted mean of values [N]."""
        return divide(self.weights @ values, self.total)

    @cached_property
    def total(self) -> np.ndarray:
        """Summed weight, float64 [R]."""
        return self.weights.sum(axis=1)

    @cached_property
    def positive(self) -> np.ndarray:
        """Mask [N] of PNEUMONIA images."""
        return self.label == PNEUMONIA

    def met(self, way: str) -> np.ndarray:
        """Returns the mask of the images in which call and label meet in that way, a field of `Confusion`.

        It is bool [N]; [R, N] where every weighting has a threshold of its own.
        """
        called = calls_of(self.probability, self.threshold)
        called = called if way.endswith("_positives") else ~called
        return called & (self.positive if way in ("true_positives", "false_negatives") else ~self.positive)

    @cached_property
    def confusion(self) -> Confusion:
        """The four counts at the threshold."""
        return Confusion(**{field.name: self.weight_of(self.met(field.name)) for field in fields(Confusion)})

    @cached_property
    def curve(self) -> Curve:
        """The counts at every threshold."""
        order = np.argsort(-self.probability, kind="stable")
        falling = self.probability[order]
        starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]])
        weights = self.weights[:, order]
        positive = self.positive[order]
        positives = np.add.reduceat(weights * positive, starts, axis=1)
        negatives = np.add.reduceat(weights * ~positive, starts, axis=1)
        return Curve(
            thresholds=falling[starts],
            positives=positives,
            negatives=negatives,
            called_positives=np.cumsum(positives, axis=1),
            called_negatives=np.cumsum(negatives, axis=1),
        )


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns `numerator / denominator`, NaN where the denominator is 0: the value is undefined there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator != 0, numerator / denominator, np.nan)
