import time

import pytest

from cxr_jax.bench import epoch
from cxr_jax.bench.cases import EpochCase
from cxr_jax.bench.epoch import EpochClock, run_epoch
from cxr_jax.training.compile import CompiledStep


def test_what_an_epoch_is_made_of(monkeypatch):
    """Two steps of 2 and 3 s with a second between them, a validation of 5 s, and 4 s of saving."""
    clock, now = EpochClock(), [0.0]
    monkeypatch.setattr(epoch.time, "perf_counter", lambda: now[0])
    clock.on_start(None, None)
    # training began at 100; what is told late must not move it
    for told, seconds, speed in ((112.5, 12.0, 8 / 2), (116.0, 16.0, 8 / 3)):
        now[0] = told
        clock.on_train({"seconds": seconds, "images_per_second": speed})
    clock.on_validation({"seconds": 21.0})
    timing = clock.timing(ended=125.0, batch_size=8)
    assert timing == {
        "epoch_seconds": pytest.approx(125 - 110 - 5),
        "steps_seconds": pytest.approx(5),
        "finish_seconds": pytest.approx(4),
        "validation_seconds": pytest.approx(5),
    }


def test_bare_steps_and_the_epoch_are_timed_apart(few_phantoms, monkeypatch):
    """A step of training that is slowed down shows in the epoch alone."""
    took, train, step = [], epoch.train, CompiledStep.__call__
    training = False

    def slow_step(program, *given):
        took.append("epoch" if training else "bare")
        if training:
            time.sleep(0.2)
        return step(program, *given)

    def marked_train(*given):
        nonlocal training
        training = True
        try:
            return train(*given)
        finally:
            training = False

    monkeypatch.setattr(CompiledStep, "__call__", slow_step)
    monkeypatch.setattr(epoch, "train", marked_train)
    case = EpochCase("mobilenetv2_tiny", 32, 8, threads=1, dataset=str(few_phantoms), devices=1)
    figures = run_epoch(case)
    # 40 images are 5 steps: 2 bare ones before, 3 after, and one each that is not counted
    assert took == ["bare"] * 3 + ["epoch"] * 5 + ["bare"] * 4
    assert (figures["steps"], figures["images"]) == (5, 40)
    assert figures["ratio"] == pytest.approx(figures["epoch_seconds"] / figures["pure_seconds"])
    assert figures["epoch_seconds"] >= figures["steps_seconds"] + figures["finish_seconds"] > 5 * 0.2
    assert figures["ratio_of_steps"] == pytest.approx(figures["steps_seconds"] / figures["pure_seconds"])
    assert figures["validation_seconds"] > 0
    assert figures["images_per_second"] == pytest.approx(40 / figures["epoch_seconds"])


def test_part_of_an_epoch_by_pmap(few_phantoms):
    case = EpochCase("mobilenetv2_tiny", 32, 4, 1, str(few_phantoms), steps=2, backend="pmap", devices=2)
    figures = run_epoch(case)
    assert (figures["steps"], figures["images"], figures["devices"]) == (2, 8, 2)
    assert case.task.endswith(f"pmap, 2 steps of an epoch of {few_phantoms.name}")
