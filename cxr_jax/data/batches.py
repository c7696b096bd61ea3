"""Batches of an image set: the order of an epoch, and the padding of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cxr_jax.data.image_set import ImageSet


class Batch(NamedTuple):
    """One training batch."""

    images: np.ndarray  # [B, S, S] uint8 in 0..255, or pooled features [B, C] float32
    labels: np.ndarray  # [B] int32
    ids: np.ndarray  # [B] int32, stable over epochs, splits of work and resumption


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order [count] in which an epoch visits its examples: a function of its arguments and nothing else."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def iterations_per_epoch(count: int, batch_size: int) -> int:
    """Steps of an epoch; the last short batch is dropped, because padded rows would enter BatchNorm."""
    return count // batch_size


def training_batches(image_set: ImageSet, *, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
    """The batches of an epoch from the one numbered `start` on, all of `batch_size` examples."""
    order = epoch_order(len(image_set.labels), seed=seed, epoch=epoch)
    for index in range(start, iterations_per_epoch(len(order), batch_size)):
        # sorted within the batch: a memory-mapped file is then read forwards, and the step does not see the difference
        rows = np.sort(order[index * batch_size : (index + 1) * batch_size])
        yield Batch(np.asarray(image_set.images[rows]), image_set.labels[rows], image_set.ids[rows])


def padded_batches(images: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Consecutive `images` [N, ...] as batches [batch_size, ...] with how many of the rows are real.

    The last batch is filled up with zeros, whose results the caller drops.
    """
    for start in range(0, len(images), batch_size):
        part = np.asarray(images[start : start + batch_size])
        missing = batch_size - len(part)
        yield np.pad(part, ((0, missing), *((0, 0),) * (part.ndim - 1))), len(part)
