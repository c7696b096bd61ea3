"""Whether samples are copies of training images: how near the nearest one is, beside real images held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.intervals import wilson_interval

NEAR = 0.05
"""Share of the images held out that count as near to a training image: samples that copy nothing have it too."""

_TIMES = 2
"""Samples count as copies from so many times that share on, by the lower end of its interval."""

_AT_ONCE = 512


@dataclass(frozen=True)
class Memorisation:
    """How near samples are to training images.

    Attributes:
        median: distance of a sample to its nearest training image, in the middle of all samples.
        median_held_out: the same of real images that were held out.
        limit: distance below which 5 % of the images held out lie.
        share: of the samples below it.
        low: lower end of the interval of that share.
        high: upper end.
        copies: whether more samples are so near than twice the share of the images held out, beyond chance.
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
    """Returns how near samples are to training images, by the distances [N] and [M] of `nearest`."""
    limit = float(np.quantile(held_out, NEAR))
    near = int(np.sum(samples < limit))
    interval = wilson_interval(near, len(samples))
    return Memorisation(
        median=float(np.median(samples)),
        median_held_out=float(np.median(held_out)),
        limit=limit,
        share=near / len(samples),
        low=interval.low,
        high=interval.high,
        copies=interval.low > _TIMES * NEAR,
    )
