"""A whole epoch of real training beside the bare steps that it holds: what everything around the steps costs."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from cxr_jax.bench.cases import EpochCase
from cxr_jax.bench.workload import DISTINCT_BATCHES
from cxr_jax.config.schema import Config, DataConfig, ModelConfig, ParallelConfig, TrainingConfig
from cxr_jax.data.image_set import ImageSet
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_split
from cxr_jax.devices import replicate
from cxr_jax.reporting.live import Observers, TensorBoardObserver, TerminalObserver
from cxr_jax.runs.folder import RunFolder
from cxr_jax.terminal import Terminal
from cxr_jax.training.feed import make_feed
from cxr_jax.training.network import Network, build_network
from cxr_jax.training.plan import Plan, plan_run
from cxr_jax.training.processes import ALONE
from cxr_jax.training.progress import Progress
from cxr_jax.training.run import compile_train_step, train
from cxr_jax.training.state import new_state


class EpochClock:
    """Told last of every step and validation, it keeps when they were done."""

    def __init__(self) -> None:
        self.train_lines: list[dict[str, Any]] = []
        self.validation_seconds = 0.0
        self.began = math.inf  # when training began, by `time.perf_counter`

    def on_start(self, plan: Any, progress: Progress) -> None:
        """Others may still have much to do before training begins."""

    def on_train(self, line: dict[str, Any]) -> None:
        """A step was done, `line["seconds"]` after training began; the soonest to be told knows best when that was."""
        self.train_lines.append(line)
        self.began = min(self.began, time.perf_counter() - line["seconds"])

    def on_validation(self, line: dict[str, Any]) -> None:
        """The network was validated, which began when the last step was done."""
        self.validation_seconds += line["seconds"] - self.train_lines[-1]["seconds"]

    def on_note(self, sentence: str) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        """Nothing to close."""

    def timing(self, ended: float, batch_size: int) -> dict[str, float]:
        """Seconds of the epoch that ended at `ended`, by the clock of `time.perf_counter`.

        `epoch_seconds` go from the beginning of the first step to the end of training, validation left out;
        `steps_seconds` are those within the steps, and `finish_seconds` what came after the last step or validation:
        saving.
        """
        steps = [batch_size / line["images_per_second"] for line in self.train_lines]
        first = self.began + self.train_lines[0]["seconds"] - steps[0]
        last = self.began + self.train_lines[-1]["seconds"] + self.validation_seconds
        return {
            "epoch_seconds": ended - first - self.validation_seconds,
            "steps_seconds": sum(steps),
            "finish_seconds": ended - last,
            "validation_seconds": self.validation_seconds,
        }


def run_epoch(case: EpochCase) -> dict[str, Any]:
    """Trains an epoch by the real loop, and as many bare steps, half of them right before and half right after.

    The loop has all that `cxr-jax train` gives it: prepared data, log, checkpoints, TensorBoard, a progress bar. The
    bare steps are the same program on batches at hand. Returns seconds, their `ratio` and what was computed, ready for
    JSON. Raises UserError as training does.
    """
    config, train_set, validation_set = _experiment(case)
    network = build_network(config.model, 0)
    plan = plan_run(config, network, train_set, validation_set)
    steps = plan.batches_per_epoch
    bare = _BareSteps(plan, network, train_set)
    with tempfile.TemporaryDirectory(prefix="cxr-jax-bench-") as folder, Path(os.devnull).open("w") as nowhere:
        run, clock = RunFolder(Path(folder)), EpochClock()
        terminal = TerminalObserver(Terminal(console=Console(file=nowhere, force_terminal=True)))
        with Observers(terminal, TensorBoardObserver(run), clock) as observers:
            bare_seconds = bare.seconds(max(steps // 2, 1))
            train(plan, network, train_set, validation_set, run, observers)
            ended = time.perf_counter()
            bare_seconds += bare.seconds(max(steps - steps // 2, 1))
    timing = clock.timing(ended, case.batch_size)
    pure_seconds = float(np.mean(bare_seconds)) * steps
    device = plan.devices[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": len(plan.devices),
        "images": len(train_set),
        "steps": steps,
        **timing,
        "pure_seconds": pure_seconds,
        "ratio": timing["epoch_seconds"] / pure_seconds,
        "ratio_of_steps": timing["steps_seconds"] / pure_seconds,
        "images_per_second": steps * case.batch_size / timing["epoch_seconds"],
    }


def _experiment(case: EpochCase) -> tuple[Config, ImageSet, ImageSet]:
    """Returns the config of one epoch and its images: all of train, if the source has a validation split of its own."""
    prepared = PreparedData.open(case.dataset)
    own = any(example.split == "val" for example in prepared.examples)
    config = Config(
        data=DataConfig(case.dataset, case.image_size, validation="official" if own else "grouped"),
        model=ModelConfig(case.model),
        training=TrainingConfig(
            epochs=1,
            batch_size=case.batch_size,
            # a batch that the devices can share is one that they can validate
            evaluation_batch_size=case.batch_size,
            precision="bf16" if case.precision == "bfloat16" else "float32",
        ),
        parallel=ParallelConfig(backend=case.backend, devices=case.devices),
    )
    train_set, validation_set = (load_split(prepared, config.data, split) for split in ("train", "val"))
    if case.steps:
        train_set = _first(train_set, case.steps * case.batch_size)
    return config, train_set, validation_set


def _first(images: ImageSet, count: int) -> ImageSet:
    return ImageSet(*(getattr(images, field.name)[:count] for field in dataclasses.fields(images)))


class _BareSteps:
    """The step of a run on a few batches at hand, and nothing around it."""

    def __init__(self, plan: Plan, network: Network, train_set: ImageSet) -> None:
        (phase,) = plan.phases
        state = new_state(network.params, network.batch_stats, phase.trainable, phase.optimizer)
        feed = make_feed(plan.config.data.placement, train_set, plan.devices, ALONE)
        self._step = compile_train_step(plan, network, phase, state, feed)
        self._state = replicate(state, plan.devices)
        batches = feed.batches(batch_size=plan.config.training.batch_size, seed=0, epoch=0)
        self._batches = itertools.cycle([*itertools.islice(batches, DISTINCT_BATCHES)])

    def seconds(self, count: int) -> list[float]:
        """Returns the seconds of each of `count` steps, after one that is not counted."""
        seconds = []
        for _ in range(count + 1):
            batch = next(self._batches)
            began = time.perf_counter()
            self._state, metrics = self._step(self._state, self._step.place(batch), 0)
            jax.block_until_ready((self._state, metrics))
            seconds.append(time.perf_counter() - began)
        return seconds[1:]
