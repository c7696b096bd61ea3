"""Which classes an image may have at a chosen error rate: split conformal prediction for each class, by groups.

A class is in the set of an image if its probability is at least a bound. The bound of a class is fixed on its
validation images alone (Vovk, Lindsay, Nouretdinov & Gammerman 2003, Mondrian confidence machine), so that of the
images of every class, and not only of all images together, a share of at most the error rate has a set without it.

This holds for any number of validation images and any network that they did not choose, as long as a new image could as
well have been one of validation. Images of one patient resemble each other, so that images are not exchangeable; groups
of them, the best stand-ins for patients, are. Every group therefore counts once, whatever its number of images, and a
new group is counted among them with the worst bound there is (Lee, Barber & Willett, "Distribution-free inference with
hierarchical data", 2023). Where every image is a group of its own this is split conformal prediction as it is usually
told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_json
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import CLASS_NAMES

SCHEMA_VERSION = 1
"""Version of conformal.json."""

ERROR_RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""For which bounds are fixed on validation; which one is used may be chosen afterwards."""

ERROR_RATE = 0.05
"""The one that is used unless another is asked for."""

_ROUNDING = 1e-9
"""Weights that should add up to a share may miss it by this much."""


@dataclass(frozen=True)
class ClassBounds:
    """From which probability on a class is in the set of an image, at each error rate.

    Attributes:
        label: the class.
        images: of the class, in validation.
        groups: that they are of; as many as images where groups are unknown.
        lowest: the bound at each of the error rates; 0 where there are too few groups to leave the class out.
    """

    label: str
    images: int
    groups: int
    lowest: tuple[float, ...]


@dataclass(frozen=True)
class ConformalSets:
    """Bounds for the probabilities of all classes, fixed on validation."""

    error_rates: tuple[float, ...]
    classes: tuple[ClassBounds, ...]

    def __post_init__(self) -> None:
        if any(len(bounds.lowest) != len(self.error_rates) for bounds in self.classes):
            raise ValueError("a class has not one bound for each error rate")

    @classmethod
    def of(cls, validation: Predictions, error_rates: tuple[float, ...] = ERROR_RATES) -> ConformalSets:
        """Returns the bounds that validation gives."""
        clusters, probabilities = validation.clusters(), class_probabilities(validation.probability)
        found = []
        for label, name in enumerate(CLASS_NAMES):
            own = validation.label == label
            groups = len(np.unique(clusters[own]))
            lowest = bounds_of(probabilities[own, label], clusters[own], error_rates)
            found.append(ClassBounds(name, int(own.sum()), groups, tuple(lowest.tolist())))
        return cls(error_rates, tuple(found))

    def rule(self, error_rate: float = ERROR_RATE) -> SetRule:
        """Returns the bounds at one of the error rates.

        Raises:
            UserError: there are none for it.
        """
        if error_rate not in self.error_rates:
            known = ", ".join(f"{rate:g}" for rate in self.error_rates)
            raise UserError(f"the error rate is {error_rate:g}, but bounds were fixed on validation for {known} alone")
        place = self.error_rates.index(error_rate)
        lowest = tuple(bounds.lowest[place] for bounds in self.classes)
        return SetRule(error_rate, tuple(bounds.label for bounds in self.classes), lowest)


@dataclass(frozen=True)
class SetRule:
    """Which classes are in the set of an image, at one error rate."""

    error_rate: float
    classes: tuple[str, ...]
    lowest: tuple[float, ...]  # probability of each class from which it is in the set

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns bool [N, K]: which classes are in the set of each image, by its probabilities [N, K]."""
        return probabilities >= np.array(self.lowest)

    def possible(self, probability: float) -> tuple[str, ...]:
        """Returns the classes in the set of one image, given its probability of PNEUMONIA."""
        (chosen,) = self.sets(class_probabilities(np.array([probability])))
        return tuple(name for name, held in zip(self.classes, chosen, strict=True) if held)


def class_probabilities(probability: np.ndarray) -> np.ndarray:
    """Returns float64 [N, 2]: the probabilities of all classes, given those of PNEUMONIA [N]."""
    return np.stack([1 - probability, probability], axis=1)


def bounds_of(probability: np.ndarray, groups: np.ndarray, error_rates: tuple[float, ...]) -> np.ndarray:
    """Returns float64 [R]: the highest bounds that a share of at most each error rate of new groups falls short of.

    Args:
        probability: float64 [N], of the class, of validation images of this class.
        groups: int [N], equal for images of one group. A group counts once, its images in equal parts.
        error_rates: [R], above 0 and below 1.

    Returns:
        0 where no bound keeps the promise, as one more group among so few is more than the error rate.
    """
    names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weight = 1 / ((len(names) + 1) * sizes[index])
    order = np.argsort(-probability, kind="stable")
    reached = np.cumsum(weight[order])
    places = np.searchsorted(reached, 1 - np.array(error_rates) - _ROUNDING)
    return np.append(probability[order], 0.0)[places]


def write_conformal(path: str | Path, sets: ConformalSets) -> None:
    """Writes conformal.json atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **fields_to_json(sets)})


def read_conformal(path: str | Path) -> ConformalSets:
    """Reads conformal.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    return read_record(path, ConformalSets, version=SCHEMA_VERSION, where="it", advice="evaluate the run again")
