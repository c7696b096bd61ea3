"""The verdict of a check of heat maps: numbers with their intervals, the rule, the same for every run, and the outcome.

A rule has to hold for the maps of each class by themselves. A mean over all can be carried by one: a network that
calls even a blurred image PNEUMONIA leaves insertion nothing to show for that class, however well it does for the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cxr_jax.evaluation.confidence import LEVEL, RESAMPLES
from cxr_jax.evaluation.intervals import bootstrap_weights, percentile_interval
from cxr_jax.runs.records import fields_to_json, from_json, to_json
from cxr_jax.vocabulary import CLASS_NAMES

FEWEST_IMAGES = 5
"""With fewer images than this no check gives a verdict, and a class with fewer is not judged by itself."""

ALL, ALL_OF_SEVERAL = "both classes", "all classes"
"""Names of a mean over all images, where no class has enough of them to be judged by itself."""


@dataclass(frozen=True)
class Mean:
    """A mean over images with the ends of its 95 % interval, which takes groups for what was sampled."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """Means over images at several places, with the ends of their 95 % intervals: K numbers each."""

    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Check:
    """One check: what a map that passes does, how that is measured, and the rule, the same for every run."""

    name: str
    title: str  # what a map that passes does, in words
    source: str  # the paper that the check is from
    measure: str  # what the number is
    rule: str  # when a map passes, about the ends of the number's interval, for each class

    def verdict(
        self, means: dict[str, Mean], holds: Callable[[Mean], bool], told: str, *, provided: bool = True
    ) -> Verdict:
        """Returns that maps pass if the rule holds for every mean, and else that they fail.

        `means` are those of `means_by_class`; `told` is one sentence or two on what was found; `provided` is whether
        that is so which the rule demands besides.
        """
        return Verdict(self, provided and all(holds(mean) for mean in means.values()), told, means)

    def no_verdict(self, reason: str) -> Verdict:
        """Returns that there is no verdict, and why."""
        return Verdict(self, None, reason, {})


@dataclass(frozen=True)
class Verdict:
    """What became of one check."""

    check: Check
    passes: bool | None  # None: no verdict, for the reason in `told`
    told: str
    means: dict[str, Mean]  # by class; empty where there is no verdict

    @property
    def word(self) -> str:
        """The verdict for a reader: `passes`, `fails` or `no verdict`."""
        return {True: "passes", False: "fails", None: "no verdict"}[self.passes]

    def as_json(self) -> dict[str, Any]:
        """Returns the verdict for a JSON file: the check and what became of it, side by side."""
        return {**fields_to_json(self.check), "passes": self.passes, "told": self.told, "numbers": to_json(self.means)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Verdict:
        """Returns the verdict that `as_json` gave `value` for; ValueError where it did not."""
        read = from_json(_Stored, value, "check")
        return cls(from_json(Check, value, "check"), read.passes, read.told, read.numbers)


@dataclass(frozen=True)
class _Stored:
    """What a JSON file holds of a verdict beside its check."""

    passes: bool | None
    told: str
    numbers: dict[str, Mean]


def judged_classes(
    classes: Int[np.ndarray, " N"], names: Sequence[str] = CLASS_NAMES
) -> dict[str, Bool[np.ndarray, " N"]]:
    """Returns the masks [N] of the classes that have enough images to be judged, by name; all images if none has.

    `classes` are indices into `names`, those of the network.
    """
    masks = {name: classes == value for value, name in enumerate(names)}
    judged = {name: mask for name, mask in masks.items() if mask.sum() >= FEWEST_IMAGES}
    return judged or {ALL if tuple(names) == CLASS_NAMES else ALL_OF_SEVERAL: np.ones(len(classes), bool)}


def means_by_class(
    values: Float[np.ndarray, " N"],
    classes: Int[np.ndarray, " N"],
    clusters: Int[np.ndarray, " N"],
    names: Sequence[str] = CLASS_NAMES,
) -> dict[str, Mean]:
    """Returns the mean of `values` [N] for each of `judged_classes`, with its interval as in `mean_over_images`."""
    judged = judged_classes(classes, names)
    return {name: mean_over_images(values[mask], clusters[mask]) for name, mask in judged.items()}


def mean_over_images(values: Float[np.ndarray, " N"], clusters: Int[np.ndarray, " N"], *, seed: int = 0) -> Mean:
    """Returns the mean of `values` [N] with the interval of the group bootstrap; `clusters` [N] number the groups.

    Where all values are equal, or all images of one group, resampling says nothing and both ends are the mean.
    """
    weights = bootstrap_weights(clusters, RESAMPLES, np.random.default_rng(seed))
    means = weights @ values / weights.sum(axis=1)
    value = float(np.mean(values))
    interval = percentile_interval(means, value, LEVEL)
    if interval is None:
        return Mean(value, value, value)
    return Mean(value, interval.low, interval.high)


def column_means(values: Float[np.ndarray, "N K"], clusters: Int[np.ndarray, " N"]) -> Line:
    """Returns mean, low and high of every column of values [N, K], for a figure."""
    means = [mean_over_images(column, clusters) for column in values.T]
    return Line(*(tuple(getattr(mean, name) for mean in means) for name in ("value", "low", "high")))
