"""Predictions of classes other than NORMAL and PNEUMONIA, whether they exclude each other or are findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from cxr_jax.runs.predicted_images import PredictedImages
from cxr_jax.runs.table import Table
from cxr_jax.vocabulary import Kind

LOGIT, PROBABILITY = "logit_", "probability_"
"""What the names of the columns begin with; the name of the class follows."""


@dataclass(frozen=True)
class ClassProbabilities(PredictedImages):
    """Predictions of K classes on N images.

    Attributes:
        classes: the K names, in the order of the labels.
        label: what the images are; of which form, the kind of the classes says.
        logits: float64 [N, K], or None when the program gave none.
        probabilities: float64 [N, K].
    """

    classes: tuple[str, ...]
    label: np.ndarray
    logits: np.ndarray | None
    probabilities: np.ndarray

    ARRAYS: ClassVar[tuple[str, ...]] = ("label", "probabilities")
    KIND: ClassVar[Kind]
    LABEL_TYPE: ClassVar[type]

    def __post_init__(self) -> None:
        self._take_columns()
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "label", np.asarray(self.label, dtype=self.LABEL_TYPE))
        object.__setattr__(self, "probabilities", np.asarray(self.probabilities, dtype=np.float64))
        if self.logits is not None:
            object.__setattr__(self, "logits", np.asarray(self.logits, dtype=np.float64))
        self._check_columns()
        for name in ("probabilities", "logits"):
            values, shape = getattr(self, name), (len(self), len(self.classes))
            if values is not None and not (values.shape == shape and np.isfinite(values).all()):
                raise ValueError(f"{name} are not {shape[0]} rows of {shape[1]} finite numbers")
        self._check()

    def _check(self) -> None:
        """Raises ValueError for names, labels or probabilities that cannot be."""
        raise NotImplementedError

    @staticmethod
    def activated(logits: np.ndarray) -> np.ndarray:
        """Returns the probabilities, float64 [N, K], of logits [N, K]."""
        raise NotImplementedError

    def with_classes(self, classes: Sequence[str]) -> Self:
        """Returns the same images with the same classes in another order."""
        columns = [self.classes.index(name) for name in classes]
        logits = None if self.logits is None else self.logits[:, columns]
        moved = {"probabilities": self.probabilities[:, columns], "logits": logits, "label": self._label_of(columns)}
        return replace(self, classes=tuple(classes), **moved)

    def _label_of(self, columns: Sequence[int]) -> np.ndarray:
        """Returns the labels where the classes stand in the order of `columns`."""
        raise NotImplementedError

    def asked(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images of which it is known whether they are of a class, a mask [N], and whether, bool."""
        raise NotImplementedError

    def label_cells(self) -> tuple[tuple[str, ...], Iterator[tuple[str, ...]]]:
        """Returns the names of the columns of labels in a table, and for each image what they say."""
        raise NotImplementedError

    @classmethod
    def from_logits(
        cls,
        logits: np.ndarray,
        *,
        file: Sequence[str],
        split: Sequence[str],
        group: Sequence[str],
        classes: Sequence[str],
        label: np.ndarray,
    ) -> Self:
        """Returns predictions with the probabilities of `logits` [N, K]; ValueError as in the class."""
        logits = np.asarray(logits, dtype=np.float64)
        columns = (tuple(file), tuple(split), tuple(group), tuple(classes))
        return cls(*columns, label, logits, cls.activated(logits))

    def with_logits(self, logits: np.ndarray) -> Self:
        """Returns the same images with other logits [N, K]."""
        return replace(self, logits=logits, probabilities=self.activated(logits))

    def select(self, rows: np.ndarray) -> Self:
        """Returns the given rows (indices or a mask, at least one row) in the given order."""
        return replace(self, **self._picked(rows))

    def _hashed_rows(self) -> Iterator[tuple[Sequence[str], Sequence[float]]]:
        for i, labels in enumerate(self.label_cells()[1]):
            logits = () if self.logits is None else self.logits[i]
            yield labels, (*logits, *self.probabilities[i])


def number_columns(
    table: Table, prefix: str, classes: tuple[str, ...], parse: Callable[[str], float]
) -> np.ndarray | None:
    """Returns the columns of all classes that begin with `prefix`, float64 [N, K]; None if one is missing or empty."""
    names = [prefix + name for name in classes]
    if not set(names) <= set(table.header) or table.is_blank(names):
        return None
    return np.array([table.column(name, parse) for name in names], np.float64).T
