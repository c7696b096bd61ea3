"""Batches of an image set: the order of an epoch, and the padding of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.images.image_set import ImageSet, Replay

Sampling = Literal["shuffled", "balanced"]
"""What an epoch visits: every example once, or every class as often as the others."""


class Batch(NamedTuple):
    """One training batch."""

    images: np.ndarray  # [B, S, S] uint8 in 0..255, or pooled features [B, C] float32
    labels: np.ndarray  # [B] int32; of findings [B, K] float32
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

_OF_REPLAY = 1
"""Parts the draw of what is replayed from that of the order."""


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Returns the order [count] in which an epoch visits its examples: a function of its arguments and nothing else."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def epoch_rows(count: int, replay: Replay | None, *, seed: int, epoch: int) -> np.ndarray:
    """Returns which of `count` examples an epoch visits, int [M], ascending: all, or some of those to be replayed."""
    if replay is None:
        return np.arange(count)
    generator = np.random.default_rng([seed, epoch, _OF_REPLAY])
    drawn = generator.choice(count - replay.first, replay.visits, replace=False)
    return np.concatenate([np.arange(replay.first), replay.first + np.sort(drawn)])


def balanced_order(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Returns the order [N] of an epoch that has as many examples of every class of `labels` [N], to within one.

    An epoch is as long as one that visits every example once. Of a class of n examples that has a share of m, each is
    visited m // n times or once more; which ones once more is drawn anew in every epoch. An element is the row of an
    example plus N times the number of its visits before, so that each visit can be told from the others.

    Raises:
        UserError: a class is so rare that its visits have no number of 32 bits.
    """
    generator, count = np.random.default_rng([seed, epoch]), len(labels)
    classes = np.unique(labels)
    visits = []
    for number, label in enumerate(classes):
        rows = np.flatnonzero(labels == label)
        share = count // len(classes) + (number < count % len(classes))
        whole, rest = divmod(share, len(rows))
        if count * (whole + 1) > np.iinfo(np.int32).max:
            raise UserError(
                f'training.sampling is "balanced", but a class has {len(rows):,} of {count:,} images, too few to be '
                'visited as often as the others; set it to "shuffled"'
            )
        visits += [rows + count * visit for visit in range(whole)]
        visits.append(generator.choice(rows, rest, replace=False) + count * whole)
    return generator.permutation(np.concatenate(visits))


def visit_ids(ids: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """Returns an id [B] int32 for every visit [B] of an epoch, as `balanced_order` numbers them, to draw changes by.

    A first visit has the id of its example among `ids` [N], and a later one an id that no example has.
    """
    visit, row = np.divmod(visits, len(ids))
    return (ids[row] + visit * id_stride(ids)).astype(np.int32)


def id_stride(ids: np.ndarray) -> int:
    """Returns what each earlier visit of an epoch adds to the id of an example: more than any of `ids`."""
    return int(ids.max()) + 1


def iterations_per_epoch(count: int, batch_size: int) -> int:
    """Returns steps of an epoch; the last short batch is dropped, because padded rows would enter BatchNorm."""
    return count // batch_size


def training_rows(
    labels: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    share: Share = WHOLE,
    sampling: Sampling = "shuffled",
    replay: Replay | None = None,
) -> Iterator[np.ndarray]:
    """Yields which of the examples with `labels` [N] make up each batch of an epoch, from the one numbered `start` on.

    With `replay` an epoch visits some only of the examples that it names, and what else is said is of those visited.
    Yields `share` of `batch_size` rows, int32, ascending; where classes are balanced a later visit of the same row is
    numbered as in `balanced_order`. The shares of all processes, one after the other, are the rows of one process
    alone.
    """
    count = len(labels)
    visited = epoch_rows(count, replay, seed=seed, epoch=epoch)
    if sampling == "balanced":
        visit, place = np.divmod(balanced_order(labels[visited], seed=seed, epoch=epoch), len(visited))
        order = (visited[place] + visit * count).astype(np.int32)
    else:
        order = visited[epoch_order(len(visited), seed=seed, epoch=epoch)].astype(np.int32)
    for index in range(start, iterations_per_epoch(len(order), batch_size)):
        part = np.sort(order[index * batch_size : (index + 1) * batch_size])
        # sorted within the batch: a memory-mapped file is then read forwards, and the step does not see the difference
        yield share.of(part[np.argsort(part % count, kind="stable")])


def training_batches(
    image_set: ImageSet,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    share: Share = WHOLE,
    sampling: Sampling = "shuffled",
) -> Iterator[Batch]:
    """Yields the batches of an epoch that `training_rows` describes, each read when it is asked for."""
    order = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "share": share}
    for visits in training_rows(image_set.labels, **order, sampling=sampling, replay=image_set.replay):
        rows = visits % len(image_set)
        ids = visit_ids(image_set.ids, visits)
        yield Batch(np.asarray(image_set.images[rows]), image_set.labels[rows], ids)


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
