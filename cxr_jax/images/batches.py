"""Batches of an image set: the order of an epoch, and the padding of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cxr_jax.images.image_set import ImageSet


class Batch(NamedTuple):
    """One training batch."""

    images: np.ndarray  # [B, S, S] uint8 in 0..255, or pooled features [B, C] float32
    labels: np.ndarray  # [B] int32
    ids: np.ndarray  # [B] int32, stable over epochs, splits of work and resumption


class Share(NamedTuple):
    """Which part of every batch a process reads, of how many equal ones in a row."""

    index: int = 0
    count: int = 1

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Returns this process's part of `rows` [B, ...]: [B / count, ...]."""
        size = len(rows) // self.count
        return rows[self.index * size : (self.index + 1) * size]


WHOLE = Share()


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Returns the order [count] in which an epoch visits its examples: a function of its arguments and nothing else."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def iterations_per_epoch(count: int, batch_size: int) -> int:
    """Returns steps of an epoch; the last short batch is dropped, because padded rows would enter BatchNorm."""
    return count // batch_size


def training_rows(
    count: int, *, batch_size: int, seed: int, epoch: int, start: int = 0, share: Share = WHOLE
) -> Iterator[np.ndarray]:
    """Yields which of `count` examples make up each batch of an epoch, from the one numbered `start` on.

    Yields `share` of `batch_size` rows, int32, ascending. The shares of all processes, one after the other, are the
    rows of one process alone.
    """
    order = epoch_order(count, seed=seed, epoch=epoch).astype(np.int32)
    for index in range(start, iterations_per_epoch(count, batch_size)):
        # sorted within the batch: a memory-mapped file is then read forwards, and the step does not see the difference
        yield share.of(np.sort(order[index * batch_size : (index + 1) * batch_size]))


def training_batches(
    image_set: ImageSet, *, batch_size: int, seed: int, epoch: int, start: int = 0, share: Share = WHOLE
) -> Iterator[Batch]:
    """Yields the batches of an epoch that `training_rows` describes, each read when it is asked for."""
    for rows in training_rows(len(image_set), batch_size=batch_size, seed=seed, epoch=epoch, start=start, share=share):
        yield Batch(np.asarray(image_set.images[rows]), image_set.labels[rows], image_set.ids[rows])


def padded_batches(images: np.ndarray, batch_size: int, share: Share = WHOLE) -> Iterator[tuple[np.ndarray, int]]:
    """Yields consecutive `images` [N, ...] as `share` of batches [batch_size, ...], with how many rows of the batch are
    real.

    The last batch is filled up with zeros, whose results the caller drops.
    """
    for start in range(0, len(images), batch_size):
        rows = share.of(np.arange(start, start + batch_size))
        first, last = rows[0], rows[-1]
        part = np.asarray(images[first : last + 1])
        missing = last + 1 - first - len(part)
        yield np.pad(part, ((0, missing), *((0, 0),) * (part.ndim - 1))), min(batch_size, len(images) - start)
