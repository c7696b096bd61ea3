"""Tests of the difference between two recipes that were given the same images, and their correction for being several.

A recipe is trained with one seed or several. Two questions can be asked of its mean over seeds, and they have different
answers: do these very networks differ on other patients (`compare_auc`, `mcnemar`, `bootstrap_p_value`), and would the
recipes differ if they were trained again as well (`difference_over_seeds`)? The second is the one that a claim about a
recipe needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, chi2, norm, t

from cxr_jax.evaluation.confidence import LEVEL
from cxr_jax.evaluation.intervals import Interval, obuchowski_covariance

# Below this a variance is rounding and says nothing.
_NO_VARIANCE = 1e-18


@dataclass(frozen=True)
class Difference:
    """A difference, first minus second, with its interval and its two-sided p-value; None where they do not exist."""

    value: float
    interval: Interval | None
    p_value: float | None


@dataclass(frozen=True)
class DifferenceOverSeeds:
    """Interval and two-sided p-value of a difference with the seeds as a sample, and Student's degrees of freedom.

    `degrees_of_freedom` is None for infinitely many: no seed differed from another by more than the patients explain.
    """

    interval: Interval
    p_value: float
    degrees_of_freedom: float | None


@dataclass(frozen=True)
class McNemar:
    """The images on which one recipe is right and the other is not, averaged over pairs of seeds, and the test."""

    only_first_right: float
    only_second_right: float
    p_value: float
    method: str


def auc_covariance(
    label: np.ndarray, scores: np.ndarray, clusters: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the ROC-AUCs [K] of scores [K, N] on the same images and their covariance [K, K].

    By Obuchowski (Biometrics 1997) over `clusters` [N]; without them it is DeLong's (Biometrics 1988). None if a class
    has fewer than two groups.
    """
    try:
        return obuchowski_covariance(label, scores, np.arange(len(label)) if clusters is None else clusters)
    except ValueError:
        return None


def compare_auc(
    label: np.ndarray, first: np.ndarray, second: np.ndarray, clusters: np.ndarray | None = None, level: float = LEVEL
) -> Difference | None:
    """Returns the difference of the mean ROC-AUCs of two recipes on the same images, for these very networks.

    The variance of the difference of means follows from the covariance of all areas: with one score each it is
    DeLong's paired test, or Obuchowski's if `clusters` [N] are given.

    Args:
        label: int [N], 0 NORMAL, 1 PNEUMONIA.
        first: float [S1, N], one score a seed of the first recipe.
        second: float [S2, N], the same of the second.
        clusters: int [N], equal for images of one group; None if images are independent.
        level: of the interval.

    Returns:
        None if a class has fewer than two groups; no interval and no p-value where the difference has no variance.
    """
    estimated = auc_covariance(label, np.concatenate([first, second]), clusters)
    if estimated is None:
        return None
    auc, covariance = estimated
    contrast = np.r_[np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))]
    value, variance = float(contrast @ auc), float(contrast @ covariance @ contrast)
    if variance <= _NO_VARIANCE:
        return Difference(value, None, None)
    error = np.sqrt(variance)
    half = float(norm.ppf((1 + level) / 2) * error)
    method = "DeLong" if clusters is None else "Obuchowski"
    return Difference(value, Interval(value - half, value + half, method), float(2 * norm.sf(abs(value) / error)))


def mcnemar(first: np.ndarray, second: np.ndarray, clusters: np.ndarray | None = None) -> McNemar:
    """Returns McNemar's test of two accuracies on the same images, for these very networks.

    One seed each and independent images: the exact binomial test of the images on which the two differ (Psychometrika
    1947). Otherwise its form for clustered pairs by Obuchowski (Statistics in Medicine 1998): with D the difference in
    right calls of a group, averaged over seeds, (K - 1) / K * sum(D)^2 / sum(D^2) over K groups is chi-squared with one
    degree of freedom; an image without a group is one of its own.

    Args:
        first: bool [S1, N], True where a seed of the first recipe calls an image what it is.
        second: bool [S2, N], the same of the second.
        clusters: int [N], or None if images are independent.
    """
    right = [np.asarray(calls, dtype=np.float64).mean(axis=0) for calls in (first, second)]
    only_first, only_second = float(np.sum(right[0] * (1 - right[1]))), float(np.sum(right[1] * (1 - right[0])))
    if clusters is None and len(first) == len(second) == 1:
        differing = round(only_first + only_second)
        p_value = float(binomtest(round(only_first), differing).pvalue) if differing else 1.0
        return McNemar(only_first, only_second, p_value, "McNemar, exact")
    _, index = np.unique(np.arange(len(right[0])) if clusters is None else clusters, return_inverse=True)
    by_group = np.bincount(index, weights=right[0] - right[1])
    squares = float(np.sum(by_group**2))
    statistic = (len(by_group) - 1) / len(by_group) * np.sum(by_group) ** 2 / squares if squares > 0 else 0.0
    return McNemar(only_first, only_second, float(chi2.sf(statistic, 1)), "McNemar, clustered")


def bootstrap_p_value(differences: np.ndarray) -> float | None:
    """Returns the two-sided p-value that inverts the percentile interval of resampled differences [R].

    It is the smallest 1 - level whose interval leaves 0 out (Davison & Hinkley, Bootstrap Methods, 1997), with one
    resample added to each count so that it is never 0. Undefined resamples (NaN) are left out. None under the
    conditions of `percentile_interval`: fewer than nine in ten are defined, or all are equal.
    """
    defined = differences[~np.isnan(differences)]
    if len(defined) == 0 or len(defined) < 0.9 * len(differences) or np.ptp(defined) < 1e-12:
        return None
    below, above = np.sum(defined <= 0) + 1, np.sum(defined >= 0) + 1
    return float(min(1.0, 2 * min(below, above) / (len(defined) + 1)))


def smallest_bootstrap_p_value(differences: np.ndarray) -> float:
    """Returns the smallest p-value that `bootstrap_p_value` can give for so many resampled differences [R]."""
    return 2 / (int(np.sum(~np.isnan(differences))) + 1)


def difference_over_seeds(
    first: np.ndarray, second: np.ndarray, covariance: np.ndarray, level: float = LEVEL
) -> DifferenceOverSeeds | None:
    """Returns interval and p-value of the difference of two means over seeds, for other patients and other seeds.

    The seeds are to a recipe what readers are to an imaging method in a multi-reader multi-case study, each of them
    reading by one method only. In the model of Obuchowski & Rockette (Communications in Statistics 1995), with a
    variance of its own for each recipe (Hillis, Statistics in Medicine 2014), the variance of the difference is

        s1^2 / n1 + s2^2 / n2 + max(c11 + c22 - 2 c12, 0)

    with the variance s^2 between the n seeds of a recipe, and the mean covariances, through the patients alone, of two
    seeds of the first recipe, of two of the second, and of one of each. It is never less than the variance through
    the patients for these very networks. Degrees of freedom are Satterthwaite's, as the covariances are estimated far
    better than the variances between so few seeds.

    Args:
        first: float [S1], the metric of every seed of the first recipe.
        second: float [S2], the same of the second.
        covariance: float [S1 + S2, S1 + S2], of the estimates over samples of patients.
        level: of the interval.

    Returns:
        None if a recipe has a single seed, or nothing varies.
    """
    counts = len(first), len(second)
    if min(counts) < 2:
        return None
    shares = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    n = counts[0]
    patients = _mean_covariance(covariance[:n, :n]) + _mean_covariance(covariance[n:, n:])
    patients -= 2 * float(covariance[:n, n:].mean())
    contrast = np.r_[np.full(n, 1 / n), np.full(counts[1], -1 / counts[1])]
    # One draw of few seeds may lie closer together than seeds do; other seeds cannot make a difference surer.
    variance = max(sum(shares) + max(patients, 0.0), float(contrast @ covariance @ contrast))
    if variance <= _NO_VARIANCE:
        return None
    spread = sum(share**2 / (count - 1) for share, count in zip(shares, counts, strict=True))
    freedom = variance**2 / spread if spread > 0 else np.inf
    value, error = float(np.mean(first) - np.mean(second)), float(np.sqrt(variance))
    half = float(t.ppf((1 + level) / 2, freedom) * error)
    return DifferenceOverSeeds(
        Interval(value - half, value + half, "Obuchowski-Rockette"),
        float(2 * t.sf(abs(value) / error, freedom)),
        float(freedom) if np.isfinite(freedom) else None,
    )


def _mean_covariance(block: np.ndarray) -> float:
    """Returns the mean of what stands off the diagonal."""
    count = len(block)
    return float((block.sum() - np.trace(block)) / (count * (count - 1)))


def difference_by_seed(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> Difference:
    """Returns the mean difference of two recipes that were trained with the same seeds, with Student's paired interval.

    It holds for other seeds on the same images: a seed decides order and draws of both recipes, so that its luck, as
    far as they share it, cancels out.

    Args:
        first: the metric by seed, at least one value.
        second: the same of the recipe that is subtracted, seeds in the same order.
        level: of the interval.

    Returns:
        No interval and no p-value for a single seed, or where all differences are equal.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    count, value = len(differences), float(differences.mean())
    variance = float(differences.var(ddof=1)) / count if count > 1 else 0.0
    if variance <= _NO_VARIANCE:
        return Difference(value, None, None)
    error = np.sqrt(variance)
    half = float(t.ppf((1 + level) / 2, count - 1) * error)
    p_value = float(2 * t.sf(abs(value) / error, count - 1))
    return Difference(value, Interval(value - half, value + half, "paired t over seeds"), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for being several, in their order (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()
