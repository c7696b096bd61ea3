import time

import pytest

from cxr_jax.bench import epoch
from cxr_jax.bench.cases import EpochCase
from cxr_jax.bench.epoch import EpochClock, run_epoch
from cxr_jax.training import placement
from cxr_jax.training.loop import Trainer
from cxr_jax.training.parallel import TrainStep


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


@pytest.fixture
def steps_run(monkeypatch):
    """A mark for every step, and where training begins and ends; a step of training is slow."""
    log = []
    train, take = Trainer.train, TrainStep.take

    def slow_take(step, *arguments):
        log.append("step")
        if log.count("begin") > log.count("end"):
            time.sleep(0.2)
        return take(step, *arguments)

    def trained(trainer):
        log.append("begin")
        train(trainer)
        log.append("end")

    monkeypatch.setattr(TrainStep, "take", slow_take)
    monkeypatch.setattr(Trainer, "train", trained)
    return log


def test_bare_steps_come_right_before_and_right_after_the_epoch(few_phantoms, steps_run):
    case = EpochCase("mobilenetv2_tiny", 32, 8, threads=1, dataset=str(few_phantoms), devices=1)
    figures = run_epoch(case)
    # 40 images are 5 steps: 2 bare ones before, 3 after, and one each that is not counted
    before, after = steps_run.index("begin"), len(steps_run) - steps_run.index("end") - 1
    assert (before, after) == (3, 4)
    assert steps_run.index("end") - before - 1 == figures["steps"] == 5
    assert figures["images"] == 40
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


def test_an_epoch_with_its_images_on_the_devices(few_phantoms, monkeypatch, steps_run):
    """As on an accelerator with room for them: the bare steps pick their rows there too."""
    monkeypatch.setattr(placement, "fits_on_devices", lambda *_: True)
    monkeypatch.setattr(placement, "training_batches", None)
    case = EpochCase("mobilenetv2_tiny", 32, 4, threads=1, dataset=str(few_phantoms), steps=2, devices=1)
    assert run_epoch(case)["steps"] == 2
    assert steps_run.count("step") == 2 + 2 + 2
