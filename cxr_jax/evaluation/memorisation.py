"""Whether samples are copies of training images: how near the nearest one is, beside real images held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import betabinom

from cxr_jax.evaluation.intervals import wilson_interval

NEAR = 0.05
"""Share of the images held out that count as near to a training image: samples that copy nothing have it too."""

_TIMES = 2
"""Samples count as copies from so many times that share on."""

_BY_LUCK = 0.025
"""How often samples that copy nothing may be as near as those that count as copies, at most."""

_AT_ONCE = 512


@dataclass(frozen=True)
class Memorisation:
    """How near samples are to training images.

    Attributes:
        median: distance of a sample to its nearest training image, in the middle of all samples.
        median_held_out: the same of real images that were held out.
        limit: distance that the nearest 5 % of the images held out do not exceed.
        share: of the samples below it.
        low: lower end of the interval of that share, for other samples.
        high: upper end.
        copies: whether more samples are so near than twice 5 %, and more than the luck of so many samples, and of so
            many images held out, explains.
    """

    median: float
    median_held_out: float
    limit: float
    share: float
    low: float
    high: float
    copies: bool


def nearest(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance [N] of each of `queries` [N, d] to the nearest of `references` [M, d], and which it is.

    A distance is the root of the mean squared difference over the d values.
    """
    queries = queries.reshape(len(queries), -1)
    references = references.reshape(len(references), -1).astype(np.float64)
    lengths = np.sum(np.square(references), axis=1)
    distances, rows = [], []
    for start in range(0, len(queries), _AT_ONCE):
        part = queries[start : start + _AT_ONCE].astype(np.float64)
        # exact for grey levels: float64 holds all of these sums
        squared = np.sum(np.square(part), axis=1)[:, None] + lengths - 2 * part @ references.T
        row = np.argmin(squared, axis=1)
        rows.append(row)
        distances.append(np.sqrt(np.maximum(squared[np.arange(len(part)), row], 0) / references.shape[1]))
    return np.concatenate(distances), np.concatenate(rows)


def memorisation(samples: np.ndarray, held_out: np.ndarray) -> Memorisation:
    """Returns how near samples are to training images, by the distances [N] and [M] of `nearest`.

    The limit is itself drawn with the images held out: of samples that copy nothing, the number below the k-th of M
    such distances is beta-binomial with k and M + 1 - k.
    """
    rank = max(1, round(NEAR * len(held_out)))
    limit = float(np.sort(held_out)[rank - 1])
    near, count = int(np.sum(samples < limit)), len(samples)
    by_luck = float(betabinom(count, rank, len(held_out) + 1 - rank).sf(near - 1))
    interval = wilson_interval(near, count)
    return Memorisation(
        median=float(np.median(samples)),
        median_held_out=float(np.median(held_out)),
        limit=limit,
        share=near / count,
        low=interval.low,
        high=interval.high,
        copies=near > _TIMES * NEAR * count and by_luck < _BY_LUCK,
    )
