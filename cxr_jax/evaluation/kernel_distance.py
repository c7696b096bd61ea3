"""How far two sets of images lie apart in a network's features: the kernel distance (KID) of Binkowski et al. 2018."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 100
"""Images of a block, where there are enough: the larger a block, the less its estimate varies."""

BLOCKS = 10
"""Blocks at least, where that leaves `_SMALLEST_BLOCK` images for each: two would make a poor standard error."""

_SMALLEST_BLOCK = 4


@dataclass(frozen=True)
class KernelDistance:
    """The squared maximum mean discrepancy under the kernel (x.y / d + 1)^3 of d features.

    Attributes:
        value: mean over the blocks; without bias, so that it may be below 0 for sets that are alike.
        standard_error: of that mean, from the spread of the blocks, which share no image.
        blocks: how many there are.
        images: how many each set has.
    """

    value: float
    standard_error: float
    blocks: int
    images: tuple[int, ...]


def kernel_distance(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> KernelDistance | None:
    """Returns the distance of two sets of features, [N, d] and [M, d]; None where one has fewer than eight images.

    Each set is shuffled by `seed` and cut into as many blocks of about `BLOCK` images as the smaller one fills, or
    into `BLOCKS` smaller ones.
    """
    smaller = min(len(first), len(second))
    if smaller < 2 * _SMALLEST_BLOCK:
        return None
    count = min(smaller // _SMALLEST_BLOCK, max(BLOCKS, smaller // BLOCK))
    generator = np.random.default_rng(seed)
    parts = [np.array_split(features[generator.permutation(len(features))], count) for features in (first, second)]
    values = np.array([squared_discrepancy(one, other) for one, other in zip(*parts, strict=True)])
    error = float(values.std(ddof=1) / np.sqrt(count))
    return KernelDistance(float(values.mean()), error, count, (len(first), len(second)))


def squared_discrepancy(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the unbiased estimate of the squared discrepancy of two sets of features, [N, d] and [M, d].

    It is the mean of the kernel over pairs within each set, no image with itself, less twice that over pairs of both.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    within = sum(_mean_of_pairs(_kernel(features, features)) for features in (first, second))
    return float(within - 2 * _kernel(first, second).mean())


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first @ second.T / first.shape[1] + 1) ** 3


def _mean_of_pairs(kernel: np.ndarray) -> float:
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
