"""Labelled probabilities of K exclusive classes under many weightings at once, as `Cases` are of two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cxr_jax.evaluation.cases import Cases, divide
from cxr_jax.runs.class_predictions import ClassPredictions


@dataclass(frozen=True)
class ClassCases:
    """N labelled rows of probabilities and R weightings of the images.

    Attributes:
        label: int [N], index of the class.
        probabilities: float64 [N, K], rows that add up to 1.
        weights: float64 [R, N], zero or more.
    """

    label: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray

    @classmethod
    def unweighted(cls, predictions: ClassPredictions) -> ClassCases:
        """Returns the images themselves: one weighting, every weight 1."""
        return cls(predictions.label, predictions.probabilities, np.ones((1, len(predictions))))

    @property
    def classes(self) -> int:
        """K, how many classes there are."""
        return self.probabilities.shape[1]

    @cached_property
    def called(self) -> np.ndarray:
        """The class of the highest probability, int [N]."""
        return np.argmax(self.probabilities, axis=1)

    @cached_property
    def total(self) -> np.ndarray:
        """Summed weight, float64 [R]."""
        return self.weights.sum(axis=1)

    def mean_of(self, values: np.ndarray) -> np.ndarray:
        """Returns float64 [R]: the weighted mean of values [N]."""
        return divide(self.weights @ values, self.total)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Summed weights, float64 [R, K, K]: rows are the true class, columns the called class."""
        called = np.eye(self.classes)[self.called]
        of_class = [self.weights[:, self.label == k] @ called[self.label == k] for k in range(self.classes)]
        return np.stack(of_class, axis=1)

    @cached_property
    def against_the_rest(self) -> tuple[Cases, ...]:
        """For each class, its probability as that of the positive class, the others together being the negative one."""
        return tuple(
            Cases((self.label == k).astype(int), self.probabilities[:, k], 0.5, self.weights)
            for k in range(self.classes)
        )

    @cached_property
    def pooled(self) -> Cases:
        """The N times K questions whether an image is of a class, as cases of one kind."""
        asked = (self.label[:, None] == np.arange(self.classes)).astype(int).ravel()
        return Cases(asked, self.probabilities.ravel(), 0.5, np.repeat(self.weights, self.classes, axis=1))

    @cached_property
    def confidence(self) -> Cases:
        """The highest probability of each image as that of being called right."""
        return Cases((self.called == self.label).astype(int), self.probabilities.max(axis=1), 0.5, self.weights)
