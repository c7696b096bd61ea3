from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.errors import UserError
from cxr_jax.images.batches import (
    Share,
    epoch_order,
    epoch_rows,
    iterations_per_epoch,
    padded_batches,
    training_batches,
    training_rows,
)
from cxr_jax.images.image_set import ImageSet, JoinedRows, Replay, SelectedRows


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


@given(counts=st.lists(st.integers(1, 12), min_size=2, max_size=4), epoch=st.integers(0, 3))
def test_a_balanced_epoch_visits_every_class_as_often_and_no_image_much_more_than_another(counts, epoch):
    total = sum(counts)
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    images = dataclasses.replace(numbered(total), labels=labels)
    order = {"batch_size": 1, "seed": 4, "epoch": epoch, "sampling": "balanced"}
    batches = list(training_batches(images, **order))
    ids = np.concatenate([batch.ids for batch in batches])
    rows = np.concatenate([batch.images[:, 0, 0] for batch in batches])
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), labels[rows])
    assert len(rows) == total
    of_class = np.bincount(labels[rows], minlength=len(counts))
    assert of_class.max() - of_class.min() <= 1
    visits = np.bincount(rows, minlength=total)
    for label in range(len(counts)):
        own = visits[labels == label]
        assert own.max() - own.min() <= 1
    # no two visits draw the same changes, and the first has those of a shuffled epoch
    assert len(set(ids)) == total
    assert set(ids) >= set(rows.astype(int) + 1000)


def test_a_balanced_epoch_is_drawn_anew_and_begun_later_is_the_rest_of_the_whole():
    labels = np.array([0] * 6 + [1] * 24, np.int32)
    images = dataclasses.replace(numbered(30), labels=labels)

    def ids_of(**changes):
        order = {"batch_size": 4, "seed": 0, "epoch": 1, "sampling": "balanced"} | changes
        return [batch.ids.tolist() for batch in training_batches(images, **order)]

    assert ids_of() == ids_of() != ids_of(epoch=2)
    assert ids_of() != ids_of(seed=1)
    assert ids_of(start=3) == ids_of()[3:]
    # fifteen of the twenty-four, others in another epoch
    common = [{row for batch in ids_of(epoch=epoch) for row in batch if 1006 <= row < 1030} for epoch in range(4)]
    assert all(len(seen) <= 15 for seen in common)
    assert len(set.union(*common)) > 20


def test_a_class_too_rare_to_be_visited_as_often_is_told():
    labels = np.zeros(70_000, np.int32)
    labels[0] = 1
    images = dataclasses.replace(numbered(70_000), images=np.zeros((70_000, 1, 1), np.uint8), labels=labels)
    with pytest.raises(UserError, match=r'training\.sampling is "balanced", but a class has 1 of 70,000 images'):
        next(training_batches(images, batch_size=8, seed=0, epoch=0, sampling="balanced"))


@given(count=st.integers(0, 20), batch_size=st.integers(1, 7))
def test_padding_fills_the_last_batch_with_zeros(count, batch_size):
    images = np.arange(1, count + 1, dtype=np.float32).reshape(-1, 1) * np.ones((1, 3), np.float32)
    batches = list(padded_batches(images, batch_size))
    assert all(len(batch) == batch_size for batch, _ in batches)
    assert sum(real for _, real in batches) == count
    for batch, real in batches:
        assert not batch[real:].any()
    np.testing.assert_array_equal(np.concatenate([images[:0], *(batch[:real] for batch, real in batches)]), images)


@given(
    count=st.integers(1, 60),
    each=st.integers(1, 5),
    processes=st.integers(1, 4),
    epoch=st.integers(0, 2),
    sampling=st.sampled_from(["shuffled", "balanced"]),
)
def test_the_shares_of_all_processes_are_the_batch_of_one(count, each, processes, epoch, sampling):
    order = {"batch_size": each * processes, "seed": 1, "epoch": epoch, "sampling": sampling}
    whole = list(training_batches(numbered(count), **order))
    shares = [
        list(training_batches(numbered(count), **order, share=Share(index, processes))) for index in range(processes)
    ]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert all(len(part.ids) == each for part in parts)
        for field in batch._fields:
            np.testing.assert_array_equal(
                np.concatenate([getattr(part, field) for part in parts]), getattr(batch, field)
            )


@given(count=st.integers(1, 20), each=st.integers(1, 3), processes=st.integers(1, 4))
def test_the_shares_of_padded_batches_are_those_of_one_process(count, each, processes):
    images = np.arange(1, count + 1, dtype=np.float32).reshape(-1, 1)
    whole = list(padded_batches(images, each * processes))
    shares = [list(padded_batches(images, each * processes, Share(index, processes))) for index in range(processes)]
    assert {len(share) for share in shares} == {len(whole)}
    for number, (batch, real) in enumerate(whole):
        assert {share[number][1] for share in shares} == {real}
        np.testing.assert_array_equal(np.concatenate([share[number][0] for share in shares]), batch)


def test_selected_rows_are_those_of_the_array():
    source = np.arange(40).reshape(10, 2, 2)
    rows = SelectedRows(source, np.array([1, 4, 9]))
    assert (len(rows), rows.shape, rows.dtype) == (3, (3, 2, 2), source.dtype)
    np.testing.assert_array_equal(rows, source[[1, 4, 9]])
    np.testing.assert_array_equal(rows[1:], source[[4, 9]])
    np.testing.assert_array_equal(rows[np.array([2, 0])], source[[9, 1]])


class Recording:
    """An array on disk that remembers which of its rows were read."""

    def __init__(self, rows: int) -> None:
        self.values, self.read = np.arange(rows, dtype=np.uint8).reshape(-1, 1, 1), []
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.read += rows.tolist()
        return self.values[rows]


def test_a_process_reads_the_images_of_its_share_alone():
    # every second image belongs to the split, as after a cut by group
    rows = np.arange(0, 80, 2)
    whole = list(training_batches(numbered(40), batch_size=16, seed=0, epoch=3))
    for index in range(4):
        disk = Recording(80)
        images = dataclasses.replace(numbered(40), images=SelectedRows(disk, rows))
        for number, batch in enumerate(
            training_batches(images, batch_size=16, seed=0, epoch=3, share=Share(index, 4)), start=1
        ):
            assert len(disk.read) == 4 * number
            expected = whole[number - 1].ids[4 * index : 4 * index + 4]
            np.testing.assert_array_equal(batch.ids, expected)
            assert disk.read[-4:] == (2 * (expected - 1000)).tolist()
        disk.read.clear()
        assert [len(part) for part, _ in padded_batches(images.images, 16, Share(index, 4))] == [4, 4, 4]
        assert len(disk.read) == len(set(disk.read)) == (12 if index < 2 else 8)


REPLAYED = 40
MIXED = np.array([0, 1, 1] * 10 + [0] * 10 + [1] * 30, np.int32)  # of which the last 40 are replayed


def visited(epoch, *, visits=20, seed=0, start=0, batch_size=10, sampling="shuffled"):
    replay = Replay(len(MIXED) - REPLAYED, visits)
    order = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "sampling": sampling}
    return list(training_rows(MIXED, **order, replay=replay))


def test_an_epoch_with_replay_visits_all_new_images_and_some_old_ones_drawn_anew():
    epochs = [np.concatenate(visited(epoch)) for epoch in range(3)]
    for rows in epochs:
        assert len(rows) == len(set(rows.tolist())) == 50
        assert set(range(30)) <= set(rows.tolist())
    old = [frozenset(rows[rows >= 30].tolist()) for rows in epochs]
    assert len(set(old)) == 3 and all(len(rows) == 20 for rows in old)
    np.testing.assert_array_equal(np.concatenate(visited(1)), epochs[1])
    assert not np.array_equal(np.concatenate(visited(1, seed=1)), epochs[1])
    np.testing.assert_array_equal(visited(1, start=3), visited(1)[3:])
    # all of them, where that many are asked for
    assert set(np.concatenate(visited(0, visits=REPLAYED)).tolist()) == set(range(70))


def test_a_balanced_epoch_with_replay_balances_what_it_visits():
    rows = np.concatenate(visited(2, sampling="balanced"))
    visit, row = np.divmod(rows, len(MIXED))
    assert len(set(rows.tolist())) == 50 and visit.max() >= 1
    assert np.bincount(MIXED[row]).tolist() == [25, 25]
    replayed = set(row[row >= 30].tolist())
    assert replayed <= set(epoch_rows(len(MIXED), Replay(30, 20), seed=0, epoch=2).tolist())
    np.testing.assert_array_equal(visited(2, sampling="balanced", start=2), visited(2, sampling="balanced")[2:])


def test_joined_rows_are_those_of_the_arrays_one_after_the_other():
    first = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    source = np.arange(100, 140, dtype=np.uint8).reshape(10, 2, 2)
    joined = JoinedRows((first, SelectedRows(source, np.array([7, 1]))))
    whole = np.concatenate([first, source[[7, 1]]])
    assert (joined.shape, joined.dtype, len(joined)) == ((5, 2, 2), np.uint8, 5)
    np.testing.assert_array_equal(np.asarray(joined), whole)
    for index in (0, 4, -1, slice(1, 4), slice(4, 9), np.array([4, 0, 3]), np.array([], int)):
        np.testing.assert_array_equal(joined[index], whole[index])
