"""What a rule for the threshold gives when patients are drawn anew: those it is set on, and those it is judged on.

A threshold that a rule chose on validation images is an estimate: other images would have moved it. The interval of a
rate at one threshold is for that threshold. A claim about a recipe needs the interval for its rule, which sets the
threshold anew in every draw of validation groups.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import bootstrap_counts
from cxr_jax.evaluation.metrics import CALL_METRICS, METRICS
from cxr_jax.evaluation.operating_point import OperatingPoint, choose_thresholds
from cxr_jax.runs.predictions import Predictions

# Weights of this many (resample, image) pairs are held at once, 16 MB.
VALUES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class RuledNetwork:
    """A network's predictions on validation and test, and the operating point whose rule set its threshold."""

    validation: Predictions
    test: Predictions
    point: OperatingPoint


@dataclass(frozen=True)
class _Sampled:
    """The groups that one draw is made of; networks over the same groups share it."""

    role: Literal["validation", "test"]
    names: tuple[tuple[str, str], ...]

    def generator(self, seed: int) -> np.random.Generator:
        """Returns the generator of the draws: for test that of `bootstrap_values`, for validation independent of it."""
        if self.role == "test":
            return np.random.default_rng(seed)
        digest = hashlib.sha256(repr(self.names).encode()).digest()
        return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


@dataclass(frozen=True)
class _Placed:
    """One split of a network: its images, the groups that are drawn, and the group of every image, int [N]."""

    predictions: Predictions
    sampled: _Sampled
    clusters: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions, role: Literal["validation", "test"]) -> _Placed:
        """Returns the placed images of one split."""
        return cls(predictions, _Sampled(role, predictions.cluster_names()), predictions.clusters())

    def cases(self, counts: Mapping[_Sampled, np.ndarray]) -> Cases:
        """Returns the images, each as often as its group was drawn."""
        weights = counts[self.sampled][:, self.clusters]
        return Cases(self.predictions.label, self.predictions.probability, 0.5, weights)


@dataclass(frozen=True)
class RuleDraws:
    """R joint draws of validation and test groups, for S networks.

    Attributes:
        thresholds: float64 [S, R], what the rule chooses on the drawn validation images; NaN where they lack a class
            that it needs.
        values: float64 [S, R] by name of metric: the metric on the drawn test images at that threshold; NaN where
            it is undefined.
    """

    thresholds: np.ndarray
    values: dict[str, np.ndarray]


def draw_rule(
    networks: Sequence[RuledNetwork],
    metrics: Sequence[str] = CALL_METRICS,
    confidence: Confidence | None = None,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> RuleDraws:
    """Draws validation and test groups with replacement, and sets every network's threshold anew in each draw.

    Networks see the same draw wherever their tables are over the same images: groups are drawn by name, so that the
    order of rows has no part in it. The draws of test are those of `bootstrap_values` with the same seed. Validation is
    drawn independently of test, as its patients are others. A threshold of the rule `fixed` stays as it is.

    Args:
        networks: at least one.
        metrics: names of `METRICS`, computed on test.
        confidence: resamples and seed; the level plays no part.
        advance: told how many more resamples are done.
    """
    confidence = confidence or Confidence()
    largest = max(len(network.validation) + len(network.test) for network in networks)
    chunk = max(1, min(confidence.resamples, VALUES_AT_ONCE // largest))
    placed = [
        (network.point, _Placed.of(network.validation, "validation"), _Placed.of(network.test, "test"))
        for network in networks
    ]
    sampled = {split.sampled: None for _, *splits in placed for split in splits}
    generators = {key: key.generator(confidence.seed) for key in sampled}
    thresholds: list[np.ndarray] = []
    values: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for start in range(0, confidence.resamples, chunk):
        count = min(chunk, confidence.resamples - start)
        counts = {key: bootstrap_counts(len(key.names), count, random) for key, random in generators.items()}
        parts = [_values(*network, counts, metrics) for network in placed]
        thresholds.append(np.stack([part[0] for part in parts]))
        for name in metrics:
            values[name].append(np.stack([part[1][name] for part in parts]))
        advance(count)
    return RuleDraws(
        np.concatenate(thresholds, axis=1),
        {name: np.concatenate(entries, axis=1) for name, entries in values.items()},
    )


def _values(
    point: OperatingPoint,
    validation: _Placed,
    test: _Placed,
    counts: Mapping[_Sampled, np.ndarray],
    metrics: Sequence[str],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the thresholds [R] and the metrics [R] of one network under the draws."""
    thresholds = choose_thresholds(validation.cases(counts), point.rule, point.told)
    cases = dataclasses.replace(test.cases(counts), threshold=thresholds)
    unknown = np.isnan(thresholds)
    return thresholds, {name: np.where(unknown, np.nan, METRICS[name].function(cases)) for name in metrics}
