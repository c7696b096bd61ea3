from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from training_runs import HEAD, Steps, Watcher, assert_equal_runs, draw_images, lines_of

from cxr_jax.config.schema import AugmentationConfig, DataConfig, ParallelConfig, PhaseConfig
from cxr_jax.devices import choose_devices, share_out
from cxr_jax.errors import UserError
from cxr_jax.images.batches import training_batches
from cxr_jax.images.image_set import SelectedRows
from cxr_jax.training.compile import CompiledStep
from cxr_jax.training.feed import FREE_SHARE, fits_on_devices, make_feed, put_on_devices
from cxr_jax.training.processes import ALONE

AUGMENTED = {"augmentation": AugmentationConfig(horizontal_flip=0.5, rotation=10)}


@pytest.fixture
def placed(config):
    """The section of the config that places images."""
    return lambda where: {"data": dataclasses.replace(config.data, placement=where)}


@pytest.mark.parametrize(
    "changes",
    [
        AUGMENTED,
        pytest.param(AUGMENTED | {"parallel": ParallelConfig("pmap", 2)}, marks=pytest.mark.slow),
        # features that are computed once, and then images, in parts
        {"phases": (HEAD, PhaseConfig("all", 1)), "training": {"accumulation_steps": 2, "sampling": "balanced"}},
    ],
    ids=["jit", "pmap", "features, then parts"],
)
def test_wherever_the_images_lie_a_run_gives_the_same_bits(trainer, config, placed, changes):
    changes = dict(changes)
    training = dataclasses.replace(config.training, **changes.pop("training", {}))
    runs = {where: trainer(where, training=training, **placed(where), **changes) for where in ("host", "device")}
    for run in runs.values():
        run.train()
    assert_equal_runs(runs["host"], runs["device"])
    assert len({line["loss"] for line in lines_of(runs["host"], "train")}) == 10


def test_a_run_goes_on_with_its_images_elsewhere(trainer, placed):
    undisturbed = trainer("undisturbed", **placed("host"))
    undisturbed.train()
    for where, step in (("device", 3), ("host", 7)):
        with pytest.raises(UserError):
            trainer("run", Watcher(signal_at=step), **placed(where)).train(resume=step > 3)
    resumed = trainer("run", **placed("device"))
    resumed.train(resume=True)
    assert_equal_runs(undisturbed, resumed)


def test_images_are_put_on_the_devices_once_for_all_phases(trainer, placed, monkeypatch):
    put = []

    def record(image_set, devices, share):
        put.append(image_set)
        return put_on_devices(image_set, devices, share)

    monkeypatch.setattr("cxr_jax.training.feed.put_on_devices", record)
    run = trainer("run", phases=(PhaseConfig("one", 1), PhaseConfig("two", 1)), **placed("device"))
    run.train()
    assert len(put) == 1
    assert put[0] is run.train_set


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
@pytest.mark.parametrize("where", ["host", "device"])
def test_a_feed_hands_over_the_examples_of_an_epoch_from_any_batch_on(where, sampling):
    images, devices = draw_images(11, seed=0), choose_devices(2)
    images.labels[:9] = 0
    feed = make_feed(where, images, devices, ALONE, sampling)
    order = {"batch_size": 4, "seed": 5, "epoch": 2}
    expected = [*training_batches(images, **order, sampling=sampling)]
    shapes = feed.shapes(4)
    for start in (0, 1):
        batches = [*feed.batches(start=start, **order)]
        assert len(batches) == 2 - start
        for batch, wanted in zip(batches, expected[start:], strict=True):
            assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), batch) == jax.tree.map(
                lambda shape: (shape.shape, shape.dtype), shapes
            )
            for column, values in zip(feed.examples(share_out(batch, devices), *feed.resident), wanted, strict=True):
                np.testing.assert_array_equal(column, values)


def test_devices_with_too_little_memory_are_a_mistake_and_other_faults_are_not(monkeypatch):
    faults = ["RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2 bytes.", "INTERNAL: a fault"]

    def fail(*_):
        raise jax.errors.JaxRuntimeError(faults.pop(0))

    monkeypatch.setattr("cxr_jax.training.feed.put_on_devices", fail)
    images = draw_images(44, seed=0)
    with pytest.raises(UserError, match=r"too little memory for all 44 training images; set data\.placement to host"):
        make_feed("device", images, choose_devices(2), ALONE)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        make_feed("device", images, choose_devices(2), ALONE)


@pytest.mark.parametrize("where", ["host", "device"])
def test_the_next_batch_is_under_way_before_a_step_is_waited_for(trainer, placed, monkeypatch, where):
    events, taken, get = [], [], jax.device_get
    step, place = CompiledStep.__call__, CompiledStep.place

    def note_step(program, *given):
        taken.append(events.append(("begun", len(taken) + 1)))
        return step(program, *given)

    def note_wait(metrics):
        events.append(("awaited", len(taken)))
        return get(metrics)

    def note_place(program, batch):
        events.append(("batch", sum(kind == "batch" for kind, _ in events) + 1))
        return place(program, batch)

    monkeypatch.setattr(CompiledStep, "__call__", note_step)
    monkeypatch.setattr(CompiledStep, "place", note_place)
    monkeypatch.setattr("cxr_jax.training.run.jax.device_get", note_wait)
    trainer("run", **placed(where)).train()
    expected = [("batch", 1)]
    for number in range(1, 11):
        expected += [("begun", number), *([("batch", number + 1)] if number < 10 else []), ("awaited", number)]
    assert events == expected


@pytest.mark.parametrize("devices", [1, 8])
def test_every_device_has_all_rows_of_a_memory_map(devices):
    images = draw_images(10, seed=0)
    rows = np.array([0, 2, 3, 7, 9])
    part = dataclasses.replace(
        draw_images(5, seed=1),
        images=SelectedRows(images.images, rows),
        labels=images.labels[rows],
        ids=images.ids[rows],
    )
    table = put_on_devices(part, choose_devices(devices))
    for column, expected in zip(table, (images.images[rows], images.labels[rows], images.ids[rows]), strict=True):
        assert len(column.addressable_shards) == devices
        for shard in column.addressable_shards:
            np.testing.assert_array_equal(shard.data, expected)


def accelerator(free: int | None, *, process: int = 0) -> SimpleNamespace:
    """A device with so many bytes free, or one that does not tell."""
    stats = None if free is None else {"bytes_limit": free + 100, "bytes_in_use": 100}
    return SimpleNamespace(platform="gpu", process_index=process, memory_stats=lambda: stats)


@pytest.mark.parametrize(
    ("free", "fits"),
    [
        ([10 * 32 * 32 / FREE_SHARE], True),
        ([10 * 32 * 32 / FREE_SHARE - 1], False),
        ([10**9, 10**4], False),
        ([10**9, 10**9], True),
        ([None], False),
    ],
)
def test_images_lie_on_accelerators_that_have_room_for_them(free, fits):
    images = draw_images(10, seed=0)
    devices = [accelerator(bytes) for bytes in free]
    assert fits_on_devices("auto", images, devices) == fits
    assert fits_on_devices("device", images, devices)
    assert not fits_on_devices("host", images, devices)
    # another process speaks for its own
    assert fits_on_devices("auto", images, [*devices, accelerator(0, process=1)]) == fits


def test_features_take_the_room_of_their_own_type():
    features = dataclasses.replace(draw_images(10, seed=0), images=np.zeros((10, 7), np.float32))
    assert fits_on_devices("auto", features, [accelerator(10 * 7 * 4 / FREE_SHARE)])
    assert not fits_on_devices("auto", features, [accelerator(10 * 7 * 4 / FREE_SHARE - 1)])


def test_on_cpus_images_stay_with_the_host_unless_asked_for():
    images = draw_images(10, seed=0)
    assert DataConfig().placement == "auto"
    assert not fits_on_devices("auto", images, choose_devices(0))
    assert fits_on_devices("device", images, choose_devices(0))


def test_steps_on_a_table_exchange_no_images(network):
    steps = Steps(network, parallel=ParallelConfig(devices=8))
    feed = make_feed("device", steps.images, steps.plan.devices, ALONE)
    text = steps.compiled(feed).compiled.as_text()
    exchanges = [line for line in text.splitlines() if "all-" in line and "u8[" in line]
    assert "u8[2,32,32]" in text
    assert exchanges == []
