from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.data.batches import epoch_order, iterations_per_epoch, padded_batches, training_batches
from cxr_jax.data.image_set import ImageSet


def numbered(count: int) -> ImageSet:
    """Images whose grey level, label and id tell which one they are."""
    names = tuple(str(index) for index in range(count))
    return ImageSet(
        images=np.arange(count, dtype=np.uint8).reshape(-1, 1, 1) * np.ones((1, 2, 2), np.uint8),
        labels=np.arange(count, dtype=np.int32) % 2,
        ids=np.arange(count, dtype=np.int32) + 1000,
        files=names,
        groups=names,
        subtypes=("normal",) * count,
    )


@given(count=st.integers(1, 60), batch_size=st.integers(1, 16), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_an_epoch_visits_every_example_once_but_for_the_short_last_batch(count, batch_size, seed, epoch):
    batches = list(training_batches(numbered(count), batch_size=batch_size, seed=seed, epoch=epoch))
    assert len(batches) == iterations_per_epoch(count, batch_size) == count // batch_size
    ids = np.concatenate([np.zeros(0, np.int32), *(batch.ids for batch in batches)])
    assert len(set(ids)) == len(ids) == len(batches) * batch_size
    for batch in batches:
        np.testing.assert_array_equal(batch.images[:, 0, 0], batch.ids - 1000)
        np.testing.assert_array_equal(batch.labels, batch.ids % 2)


@given(start=st.integers(0, 7), seed=st.integers(0, 3))
def test_an_epoch_begun_later_is_the_rest_of_the_whole(start, seed):
    whole = list(training_batches(numbered(30), batch_size=4, seed=seed, epoch=2))
    rest = list(training_batches(numbered(30), batch_size=4, seed=seed, epoch=2, start=start))
    assert [batch.ids.tolist() for batch in rest] == [batch.ids.tolist() for batch in whole[start:]]


def test_the_order_changes_with_seed_and_epoch_and_with_nothing_else():
    orders = {(seed, epoch): tuple(epoch_order(50, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    for (seed, epoch), order in orders.items():
        assert tuple(epoch_order(50, seed=seed, epoch=epoch)) == order


@given(count=st.integers(0, 20), batch_size=st.integers(1, 7))
def test_padding_fills_the_last_batch_with_zeros(count, batch_size):
    images = np.arange(1, count + 1, dtype=np.float32).reshape(-1, 1) * np.ones((1, 3), np.float32)
    batches = list(padded_batches(images, batch_size))
    assert all(len(batch) == batch_size for batch, _ in batches)
    assert sum(real for _, real in batches) == count
    for batch, real in batches:
        assert not batch[real:].any()
    np.testing.assert_array_equal(np.concatenate([images[:0], *(batch[:real] for batch, real in batches)]), images)
