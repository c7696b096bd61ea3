"""The verdict of a check of heat maps: a number with its interval, the rule fixed beforehand, and what came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cxr_jax.evaluation.intervals import LEVEL, RESAMPLES, bootstrap_weights, percentile_interval

FEWEST_IMAGES = 5
"""With fewer images than this no check gives a verdict."""


@dataclass(frozen=True)
class Mean:
    """A mean over images with the ends of its 95 % interval, which takes groups for what was sampled."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Check:
    """One check: what a map that passes does, how that is measured, and the rule, fixed before any map was measured."""

    name: str
    title: str  # what a map that passes does, in words
    source: str  # the paper that the check is from
    measure: str  # what the number is
    rule: str  # when a map passes, about the ends of the number's interval

    def verdict(self, mean: Mean, passes: bool, told: str) -> Verdict:
        """Return that a map passes or fails with this number; `told` is one sentence or two on what was found."""
        return Verdict(self, passes, told, mean)

    def no_verdict(self, reason: str) -> Verdict:
        """Return that there is no verdict, and why."""
        return Verdict(self, None, reason, None)


@dataclass(frozen=True)
class Verdict:
    """What became of one check."""

    check: Check
    passes: bool | None  # None: no verdict, for the reason in `told`
    told: str
    mean: Mean | None

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict for a JSON file, flat; value, low and high are None where there is no verdict."""
        mean = dict.fromkeys(("value", "low", "high")) if self.mean is None else asdict(self.mean)
        return {**asdict(self.check), "passes": self.passes, "told": self.told, **mean}


def mean_over_images(values: Float[np.ndarray, " N"], clusters: Int[np.ndarray, " N"], *, seed: int = 0) -> Mean:
    """Return the mean of `values` [N] with the interval of the group bootstrap; `clusters` [N] number the groups.

    Where all values are equal, or all images of one group, resampling says nothing and both ends are the mean.
    """
    weights = bootstrap_weights(clusters, RESAMPLES, np.random.default_rng(seed))
    means = weights @ values / weights.sum(axis=1)
    value = float(np.mean(values))
    interval = percentile_interval(means, LEVEL)
    if interval is None:
        return Mean(value, value, value)
    return Mean(value, interval.low, interval.high)


def column_means(values: Float[np.ndarray, "N K"], clusters: Int[np.ndarray, " N"]) -> dict[str, list[float]]:
    """Return mean, low and high of every column of values [N, K], each a list of K numbers, for a figure."""
    means = [mean_over_images(column, clusters) for column in values.T]
    return {name: [getattr(mean, name) for mean in means] for name in ("value", "low", "high")}
