"""Confidence intervals: DeLong, its clustered form by Obuchowski, Wilson by image or group, and the group bootstrap.

Images of one patient resemble each other, so intervals that take images for independent are too narrow; the clustered
ones take groups as what was sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import LEVEL, RESAMPLES
from cxr_jax.vocabulary import PNEUMONIA

if TYPE_CHECKING:
    from cxr_jax.evaluation.class_cases import ClassCases

Weighted = TypeVar("Weighted", bound="Cases | ClassCases")

# Weights of this many (resample, image) pairs are held at once, 32 MB.
VALUES_AT_ONCE = 4_000_000

DEFINED = 0.9
"""Share of the resamples that must give a value: the rest would be no fair sample."""


@dataclass(frozen=True)
class Interval:
    """The ends of a confidence interval, and the method that they come from."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Placements:
    """For every image, the share of the other class that it is ranked on the right side of, ties counting half.

    Attributes:
        positive: float64 [K, P], of PNEUMONIA images under K scores.
        negative: float64 [K, Q], of NORMAL images.
        auc: float64 [K], their common mean.
    """

    positive: np.ndarray
    negative: np.ndarray
    auc: np.ndarray


def placements(label: np.ndarray, scores: np.ndarray) -> Placements:
    """Returns the placements of scores [K, N] by midranks (Sun & Xu, IEEE Signal Processing Letters 2014).

    Raises:
        ValueError: the labels [N] are of one class only.
    """
    scores = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    positive = np.asarray(label) == PNEUMONIA
    p, q = int(positive.sum()), int((~positive).sum())
    if p == 0 or q == 0:
        raise ValueError("the images are of one class only")
    ranks = rankdata(scores, axis=1)
    own_positive = rankdata(scores[:, positive], axis=1)
    own_negative = rankdata(scores[:, ~positive], axis=1)
    of_positive = (ranks[:, positive] - own_positive) / q
    of_negative = 1 - (ranks[:, ~positive] - own_negative) / p
    return Placements(of_positive, of_negative, of_positive.mean(axis=1))


def delong_covariance(label: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the AUCs [K] of scores [K, N] on the same images and their covariance [K, K].

    DeLong, DeLong & Clarke-Pearson, Biometrics 1988, for independent images.

    Raises:
        ValueError: a class has fewer than two images.
    """
    return obuchowski_covariance(label, scores, np.arange(len(label)))


def obuchowski_covariance(label: np.ndarray, scores: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the AUCs [K] of scores [K, N] on the same images and their covariance [K, K] for clustered images.

    Obuchowski, Biometrics 1997, "Nonparametric analysis of clustered ROC curve data"; with one image a cluster it is
    DeLong's covariance. `clusters` is int [N], equal for images of one group.

    Raises:
        ValueError: a class has fewer than two clusters.
    """
    values = placements(label, scores)
    positive = np.asarray(label) == PNEUMONIA
    names, index = np.unique(clusters, return_inverse=True)
    p_sizes = np.bincount(index[positive], minlength=len(names))
    q_sizes = np.bincount(index[~positive], minlength=len(names))
    p_clusters, q_clusters = np.count_nonzero(p_sizes), np.count_nonzero(q_sizes)
    if p_clusters < 2 or q_clusters < 2:
        raise ValueError("a class has fewer than two groups")
    p_excess = _sums(values.positive - values.auc[:, None], index[positive], len(names))
    q_excess = _sums(values.negative - values.auc[:, None], index[~positive], len(names))
    p_share = p_excess @ p_excess.T * p_clusters / (p_clusters - 1) / p_sizes.sum() ** 2
    q_share = q_excess @ q_excess.T * q_clusters / (q_clusters - 1) / q_sizes.sum() ** 2
    mixed = p_excess @ q_excess.T * len(names) / (len(names) - 1) / (p_sizes.sum() * q_sizes.sum())
    return values.auc, p_share + q_share + mixed + mixed.T


def _sums(values: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """Returns float64 [K, count]: values [K, M] summed by cluster index [M]."""
    return np.stack([np.bincount(index, weights=row, minlength=count) for row in values])


def auc_interval(
    label: np.ndarray, probability: np.ndarray, clusters: np.ndarray | None = None, level: float = LEVEL
) -> Interval | None:
    """Returns the interval of the ROC-AUC, by DeLong, or by Obuchowski if `clusters` [N] are given.

    As in `area_interval`; None also if a class has fewer than two images (or groups).
    """
    try:
        if clusters is None:
            areas, covariance = delong_covariance(label, probability)
        else:
            areas, covariance = obuchowski_covariance(label, probability, clusters)
    except ValueError:
        return None
    method = "DeLong" if clusters is None else "Obuchowski"
    return area_interval(float(areas[0]), float(covariance[0, 0]), method, level)


def area_interval(auc: float, variance: float, method: str, level: float = LEVEL) -> Interval | None:
    """Returns the interval of an area, or of a mean of areas, with a variance that `method` gave.

    It is symmetric about the area on the scale of the logit, on which the estimate is nearer to normal and no end
    leaves 0..1 (Pepe 2003, chapter 5). None if the variance is 0, as that of a perfect ranking is: it says nothing.
    """
    if variance <= 1e-18 or not 0 < auc < 1:
        return None
    half = norm.ppf((1 + level) / 2) * np.sqrt(variance) / (auc * (1 - auc))
    return Interval(float(expit(logit(auc) - half)), float(expit(logit(auc) + half)), f"{method}, logit")


def wilson_interval(successes: float, trials: float, level: float = LEVEL) -> Interval | None:
    """Returns the score interval of a proportion (Wilson, JASA 1927), for independent images; None without trials."""
    if trials == 0:
        return None
    z = norm.ppf((1 + level) / 2)
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return Interval(float(max(centre - half, 0)), float(min(centre + half, 1)), "Wilson")


def wilson_interval_of_groups(
    right: np.ndarray, clusters: np.ndarray, weights: np.ndarray | None = None, level: float = LEVEL
) -> Interval | None:
    """Returns the score interval of a share of images that come in groups; None without images.

    Wilson's interval for as many independent images as the groups are worth: the number at which a binomial share
    would vary as much as this one does over groups (the design effect of Rao & Scott, Biometrics 1992). That number is
    at most the number of images. Where the share is 0 or 1 the groups tell no variance; then every image counts as a
    copy of the others of its group, which is rather too wide than too narrow.

    Args:
        right: bool or float [N], 1 for the images that are counted, 0 for the others.
        clusters: int [N], equal for images of one group.
        weights: float [N], how much each image counts; by default 1.
        level: of the interval.
    """
    if len(right) == 0:
        return None
    weights = np.ones(len(right)) if weights is None else weights
    right = np.asarray(right, dtype=np.float64)
    total, (_, index) = float(weights.sum()), np.unique(clusters, return_inverse=True)
    share = float(weights @ right) / total
    groups = int(index.max()) + 1
    copies = total**2 / float(np.sum(np.bincount(index, weights=weights) ** 2))
    if groups < 2 or len(np.unique(right[weights > 0])) == 1:
        effective = copies
    else:
        excess = np.bincount(index, weights=weights * (right - share))
        variance = groups / (groups - 1) * float(np.sum(excess**2)) / total**2
        images = total**2 / float(np.sum(weights**2))
        effective = share * (1 - share) / max(variance, share * (1 - share) / images)
    interval = wilson_interval(share * effective, effective, level)
    return None if interval is None else Interval(interval.low, interval.high, "Wilson by groups")


def bootstrap_weights(clusters: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Returns float64 [resamples, N]: how often each image is drawn when whole clusters are drawn with replacement.

    Field & Welsh, JRSS B 2007, the cluster bootstrap. `clusters` is int [N], equal for images of one group; the order
    of the images has no part in the draw.
    """
    _, index = np.unique(clusters, return_inverse=True)
    return bootstrap_counts(int(index.max()) + 1, resamples, random)[:, index]


def bootstrap_counts(clusters: int, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Returns float64 [resamples, clusters]: how often each is drawn when as many as there are, are drawn."""
    return random.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.float64)


def bootstrap_values(
    cases: Weighted,
    clusters: np.ndarray,
    measures: Mapping[str, Callable[[Weighted], np.ndarray]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, np.ndarray]:
    """Returns every measure's value in every resample, float64 [resamples], NaN where it is undefined there.

    All measures see the same resamples. Memory stays bounded however many images there are. `advance` is told how many
    more resamples are done.
    """
    chunk = max(1, min(resamples, VALUES_AT_ONCE // np.size(cases.label)))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in measures}
    random = np.random.default_rng(seed)
    for start in range(0, resamples, chunk):
        weights = bootstrap_weights(clusters, min(chunk, resamples - start), random)
        resampled = replace(cases, weights=weights)
        for name, measure in measures.items():
            parts[name].append(measure(resampled))
        advance(len(weights))
    return {name: np.concatenate(values) for name, values in parts.items()}


def percentile_interval(
    values: np.ndarray, estimate: float, level: float = LEVEL, method: str = "group bootstrap"
) -> Interval | None:
    """Returns the percentile interval of bootstrap values (Efron & Tibshirani 1993, chapter 13) of an estimate.

    Undefined resamples are left out. None if fewer than nine in ten are defined, for the rest is no fair sample, or
    if all are equal, as with a sensitivity of 100 %, where resampling says nothing about the spread. None as well if
    the estimate itself lies outside: resamples are then biased, and so would be the interval.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < DEFINED * len(values) or len(defined) == 0 or np.ptp(defined) < 1e-12:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    # a mean of equal values may differ from them by its rounding
    slack = 1e-12 * max(1.0, abs(estimate))
    return Interval(float(low), float(high), method) if low - slack <= estimate <= high + slack else None


def absolute_sum_interval(
    parts: np.ndarray, resampled: np.ndarray, level: float = LEVEL, method: str = "group bootstrap"
) -> Interval | None:
    """Returns the interval of a sum of absolute values, such as a calibration error, by inverting a bootstrap test.

    Noise in a part has no sign in the sum, so that resampled sums lie too high, and so does the estimate itself. A true
    sum is tried as a multiple of the estimated parts: it is in the interval if the estimate is neither among the
    lowest nor among the highest of what that multiple gives with the noise of the resamples (Davison & Hinkley 1997,
    chapter 5.4). The interval reaches up to the estimate at least. None if all parts are 0, or nothing varies.

    Args:
        parts: float64 [B], whose absolute values add up to the estimate.
        resampled: float64 [R, B], the parts of every resample.
        level: of the interval.
        method: its name.
    """
    estimate, noise = float(np.abs(parts).sum()), resampled - parts
    if estimate == 0 or np.ptp(resampled, axis=0).max() < 1e-12:
        return None
    tail = (1 - level) / 2

    def too_small(multiple: float) -> bool:
        return bool(np.mean(np.abs(multiple * parts + noise).sum(axis=1) >= estimate) <= tail)

    def too_large(multiple: float) -> bool:
        return bool(np.mean(np.abs(multiple * parts + noise).sum(axis=1) <= estimate) <= tail)

    low = _boundary(too_small, 0.0, 1.0) if too_small(0.0) else 0.0
    beyond = 2.0
    while not too_large(beyond):
        beyond *= 2
    high = 1.0 if too_large(1.0) else _boundary(lambda multiple: not too_large(multiple), 1.0, beyond)
    return Interval(low * estimate, high * estimate, f"{method}, inverted")


def _boundary(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Returns, to six digits, where `holds` ceases between `low`, where it is true, and `high`, where it is not."""
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2
