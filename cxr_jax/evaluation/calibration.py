"""Whether a probability of 80 % means eight in ten: temperature, recalibration, calibration error, curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import LEVEL
from cxr_jax.evaluation.intervals import Interval, wilson_interval
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import NORMAL, PNEUMONIA

Binning = Literal["width", "mass"]

BINNINGS: tuple[tuple[Binning, int], ...] = (("width", 10), ("width", 15), ("mass", 10), ("mass", 15))
"""The binnings of a report; the calibration error depends on them (Nixon et al. 2019), so several are shown."""

# A temperature outside this range means that the fit ran away: separable images, or scores without information.
_COLDEST, _HOTTEST = 1e-2, 1e2

# Newton's method needs about ten.
_NEWTON_STEPS = 100


def margins_of(predictions: Predictions) -> np.ndarray:
    """Returns float64 [N]: the logit of PNEUMONIA minus that of NORMAL, from the probability where there are none."""
    if predictions.logits is not None:
        return predictions.logits[:, PNEUMONIA] - predictions.logits[:, NORMAL]
    epsilon = np.finfo(np.float64).eps
    probability = np.clip(predictions.probability, epsilon, 1 - epsilon)
    return np.log(probability) - np.log1p(-probability)


def fit_temperature(margins: np.ndarray, label: np.ndarray) -> float | None:
    """Returns the temperature T that minimises the log-loss of `expit(margins / T)`.

    Guo et al., ICML 2017. The loss is convex in 1/T, so the temperature is the root of its slope.

    Args:
        margins: float [N], logit of PNEUMONIA minus that of NORMAL.
        label: int [N], 0 NORMAL, 1 PNEUMONIA.

    Returns:
        T from 0.01 to 100, or None where the loss has no minimum there: the images are of one class, are separated
        without error, or the scores rank them no better than chance.
    """
    label = np.asarray(label)

    def slope(inverse: float) -> float:
        return float(np.mean(margins * (expit(inverse * margins) - label)))

    coldest, hottest = 1 / _COLDEST, 1 / _HOTTEST
    if len(np.unique(label)) < 2 or slope(hottest) >= 0 or slope(coldest) <= 0:
        return None
    return 1 / float(brentq(slope, hottest, coldest, xtol=1e-12))


def apply_temperature(margins: np.ndarray, temperature: float) -> np.ndarray:
    """Returns float64 [N]: the probability of PNEUMONIA of margins divided by the temperature."""
    return expit(margins / temperature)


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of a recalibration, with its interval; None where that does not exist."""

    value: float
    interval: Interval | None


def recalibration(
    margins: np.ndarray, label: np.ndarray, clusters: np.ndarray | None = None, level: float = LEVEL
) -> tuple[Coefficient, Coefficient] | None:
    """Returns intercept a and slope b of the logistic recalibration, which makes `expit(a + b * margins)` most likely.

    Cox, Biometrika 1958. A slope of 1 and an intercept of 0 are best. A slope below 1 means that probabilities are too
    extreme, which is all that a temperature mends; an intercept other than 0 stays as it is under every temperature.
    Intervals are Wald's with the sandwich variance of groups (Liang & Zeger, Biometrika 1986).

    Args:
        margins: float [N], logit of PNEUMONIA minus that of NORMAL.
        label: int [N], 0 NORMAL, 1 PNEUMONIA.
        clusters: int [N], equal for images of one group; None if images are independent.
        level: of the intervals.

    Returns:
        None where nothing is most likely: the images are of one class, or a margin separates the classes without
        error, or all margins are equal.
    """
    positive = np.asarray(label) == PNEUMONIA
    if positive.all() or not positive.any() or np.ptp(margins) == 0:
        return None
    ill, well = margins[positive], margins[~positive]
    if ill.min() >= well.max() or ill.max() <= well.min():
        return None
    design = np.stack([np.ones(len(margins)), margins], axis=1)
    beta = _most_likely(design, positive, np.zeros(len(margins)))
    intercept, slope = _coefficients(design, positive, design @ beta, beta, clusters, level)
    return intercept, slope


def calibration_in_the_large(
    margins: np.ndarray, label: np.ndarray, clusters: np.ndarray | None = None, level: float = LEVEL
) -> Coefficient | None:
    """Returns how many logits all probabilities lie too low: the a for which `expit(a + margins)` is most likely.

    The mean probability is then the share of PNEUMONIA (Van Calster et al., BMC Medicine 2019). 0 is best; below 0,
    probabilities are too high. Arguments and interval as in `recalibration`; None if the images are of one class.
    """
    positive = np.asarray(label) == PNEUMONIA
    if positive.all() or not positive.any():
        return None
    design = np.ones((len(margins), 1))
    reach = float(np.abs(margins).max()) + np.log(len(margins)) + 1
    shift = float(brentq(lambda a: float(np.sum(expit(a + margins)) - positive.sum()), -reach, reach, xtol=1e-12))
    (coefficient,) = _coefficients(design, positive, shift + margins, np.array([shift]), clusters, level)
    return coefficient


def _most_likely(design: np.ndarray, positive: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Returns the coefficients [P] of a logistic regression on `design` [N, P], by Newton's method."""

    def loss(beta: np.ndarray) -> float:
        return float(np.sum(np.logaddexp(0, offset + design @ beta) - positive * (offset + design @ beta)))

    beta = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        probability = expit(offset + design @ beta)
        information = (design * (probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.lstsq(information, design.T @ (positive - probability), rcond=None)[0]
        size = 1.0
        while size > 1e-8 and loss(beta + size * step) > loss(beta):
            size /= 2
        beta = beta + size * step
        if np.abs(step).max() < 1e-10 * (1 + np.abs(beta).max()):
            break
    return beta


def _coefficients(
    design: np.ndarray,
    positive: np.ndarray,
    logits: np.ndarray,
    beta: np.ndarray,
    clusters: np.ndarray | None,
    level: float,
) -> list[Coefficient]:
    """Returns the coefficients [P] of a fitted logistic regression with their intervals; `logits` [N] are its own."""
    probability = expit(logits)
    _, index = np.unique(np.arange(len(logits)) if clusters is None else clusters, return_inverse=True)
    groups = int(index.max()) + 1
    scores = design * (positive - probability)[:, None]
    by_group = np.stack([np.bincount(index, weights=column) for column in scores.T], axis=1)
    bread = np.linalg.pinv((design * (probability * (1 - probability))[:, None]).T @ design)
    if groups < 2:
        return [Coefficient(float(value), None) for value in beta]
    covariance = bread @ (by_group.T @ by_group) @ bread * groups / (groups - 1)
    half = norm.ppf((1 + level) / 2) * np.sqrt(np.diag(covariance))
    method = "sandwich" if clusters is None else "sandwich by groups"
    return [
        Coefficient(float(value), Interval(float(value - width), float(value + width), method))
        for value, width in zip(beta, half, strict=True)
    ]


@dataclass(frozen=True)
class Bin:
    """The images whose probability falls between two edges, never none."""

    low: float
    high: float
    images: int
    mean_probability: float
    share_of_pneumonia: float
    interval: Interval | None


def bin_index(probability: np.ndarray, binning: Binning, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bin of every probability, int [N], and the edges, float64 [B + 1].

    `width` cuts 0..1 into equal pieces; `mass` cuts at quantiles, so that bins hold about equally many images. Equal
    probabilities share a bin, so B can be smaller than `bins`. Bins are closed above, the first one below too.
    """
    if binning == "width":
        edges = np.linspace(0, 1, bins + 1)
    else:
        edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)))
        if len(edges) == 1:
            edges = np.repeat(edges, 2)
    return np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, len(edges) - 2), edges


def reliability_curve(
    label: np.ndarray, probability: np.ndarray, binning: Binning = "mass", bins: int = 10
) -> list[Bin]:
    """Returns the bins that hold images: mean probability of PNEUMONIA beside its share, with a Wilson interval.

    DeGroot & Fienberg, The Statistician 1983.
    """
    index, edges = bin_index(probability, binning, bins)
    curve = []
    for number in np.unique(index):
        inside = index == number
        count, positives = int(inside.sum()), int((label[inside] == PNEUMONIA).sum())
        curve.append(
            Bin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                images=count,
                mean_probability=float(probability[inside].mean()),
                share_of_pneumonia=positives / count,
                interval=wilson_interval(positives, count),
            )
        )
    return curve


def expected_calibration_error(cases: Cases, binning: Binning = "width", bins: int = 15) -> np.ndarray:
    """Returns float64 [R]: the mean distance of probability and share of PNEUMONIA over bins, weighted by images.

    Naeini et al., AAAI 2015, for the probability of PNEUMONIA (not that of the called class). The bins are those of
    the images themselves under every weighting.
    """
    return np.abs(calibration_gaps(cases, binning, bins)).sum(axis=1)


def calibration_gaps(cases: Cases, binning: Binning = "width", bins: int = 15) -> np.ndarray:
    """Returns float64 [R, B]: how far probability exceeds the share of PNEUMONIA in a bin, times its share of images.

    The sum of their absolute values is the `expected_calibration_error`.
    """
    index, edges = bin_index(cases.probability, binning, bins)
    excess = cases.weights * (cases.probability - cases.label)
    gaps = np.stack([excess[:, index == number].sum(axis=1) for number in range(len(edges) - 1)], axis=1)
    return gaps / cases.total[:, None]
