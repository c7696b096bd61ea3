"""What the processes of tests do: each is forked from one that has imported this, and calls a function of it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from smallest_network import smallest_network
from training_runs import HEAD, SIZE, TrainingRun, doubled, draw_images, take_steps

from cxr_jax.config.schema import (
    AugmentationConfig,
    Config,
    DataConfig,
    ModelConfig,
    ParallelConfig,
    PhaseConfig,
    TrainingConfig,
    ValidationConfig,
)
from cxr_jax.devices import choose_devices
from cxr_jax.errors import UserError
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.compile import Backend
from cxr_jax.training.connections import Place
from cxr_jax.training.processes import ALONE, ProcessGroup, connected, joined
from cxr_jax.training.saving import has_state

READY = "ready\n"
MODEL = ModelConfig(name="mobilenetv2_tiny", dropout=0.2)
CONFIG = Config(
    data=DataConfig(image_size=SIZE),
    model=MODEL,
    training=TrainingConfig(batch_size=8, evaluation_batch_size=8),
    validation=ValidationConfig(every_iterations=2),
    phases=(
        HEAD,
        PhaseConfig("all", 2, augmentation=AugmentationConfig(horizontal_flip=0.5)),
    ),
)


def run(said: Path, work: Callable[..., Any], place: Place, limits: ParallelConfig, arguments: tuple) -> None:
    """Do `work` in a group that is only connected, without jax; what it prints, and returns as JSON, goes to `said`."""

    def meet() -> Any:
        with connected(place, limits) as group:
            return work(group, *arguments)

    _end_as_a_command_does(said, meet)


def run_joined(said: Path, work: Callable[..., Any], place: Place, limits: ParallelConfig, arguments: tuple) -> None:
    """Do `work` in a group that computes together, with two devices of each process."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)

    def meet() -> Any:
        address = f"{place.host}:{place.port}"
        named = dataclasses.replace(limits, coordinator=address, world_size=place.world_size, rank=place.rank)
        with joined(named) as group:
            return work(group, *arguments)

    _end_as_a_command_does(said, meet)


def _end_as_a_command_does(said: Path, work: Callable[[], Any]) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(2, 1)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    code = 0
    try:
        print(json.dumps(work()))
    except UserError as error:
        code = error.code
        print(f"cxr-jax: {error}", file=sys.stderr)
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def exchange_often(group: ProcessGroup) -> list[bool]:
    """Whether what came was what all had given, of 20 exchanges."""
    return [
        group.exchange([number, group.rank]) == [[number, process] for process in range(group.world_size)]
        for number in range(20)
    ]


def facts(group: ProcessGroup) -> list:
    """What a process is told of itself and of all."""
    return [group.writes, list(group.share), group.agree(True), group.agree(group.rank > 0)]


def sees_state(group: ProcessGroup, folders: list[str]) -> bool:
    """Whether there is a state to go on from; each process has a folder of its own."""
    return has_state(Path(folders[group.rank]), group)


def go_on(group: ProcessGroup, seconds: float) -> None:
    """Move on together every 0.3 s, for `seconds`; says when it begins."""
    group.together()
    print(READY, end="")
    deadline = time.monotonic() + seconds
    while group.agree(time.monotonic() < deadline):
        time.sleep(0.3)


def hang(group: ProcessGroup, hanging: list[int]) -> None:
    """All but those that hang wait for them."""
    if group.rank in hanging:
        time.sleep(600)
    group.together()


def fail(group: ProcessGroup, failing: list[int], interrupted: bool = False) -> None:
    """Those that fail say why, unless they are interrupted; the others wait for them."""
    group.together()
    if group.rank in failing:
        raise KeyboardInterrupt if interrupted else UserError("the disk is full")
    group.together()


def differ(group: ProcessGroup) -> None:
    """The last process has another rate."""
    group.require_same("config", {"training.seed": 0, "optimizer.learning_rate": 0.1})
    rate = 0.2 if group.rank == group.world_size - 1 else 0.1
    group.require_same("config", {"training.seed": 0, "optimizer.learning_rate": rate})


def leave_one_after_another(group: ProcessGroup) -> None:
    """Process 0 is the first to leave."""
    group.together()
    time.sleep(0.7 * group.rank)


def stop(group: ProcessGroup, wishing: int, at: int) -> int:
    """The call at which it stopped; nothing but the calls keeps the processes together, which are not equally fast."""
    for call in range(1, 10_000):
        if group.agree_to_stop("terminated" if group.rank == wishing and call >= at else None) == "terminated":
            return call
        time.sleep(0.001 * (group.rank + 1))
    return 0


def compute(group: ProcessGroup, out: str, steps: int, cases: list[tuple[Backend, bool]]) -> None:
    """Process 0 stores what steps of each of `cases` gave: a backend, and whether the images are on the devices."""
    group.connect(choose_devices(0))
    with jax.enable_x64(True):
        network = doubled(smallest_network(MODEL))
        for backend, on_devices in cases:
            options = {"steps": steps, "group": group, "on_devices": on_devices}
            losses, arrays = take_steps(network, 0, backend, **options)
            if group.writes:
                np.savez(f"{out}/{backend}-{'device' if on_devices else 'host'}.npz", losses=losses, **arrays)


class Watcher:
    """Takes its time after every step, and ends this process by a signal after one of them."""

    def __init__(self, *, at: int = 0, number: int = 0) -> None:
        self.at, self.number = at, number

    def on_start(self, plan: object, progress: object) -> None:
        """Nothing."""

    def on_features(self, done: int, total: int) -> None:
        """Nothing."""

    def on_train(self, line: dict[str, Any]) -> None:
        """Send the signal, or wait."""
        if line["step"] == self.at:
            os.kill(os.getpid(), self.number)
        time.sleep(0.1)

    def on_validation(self, line: dict[str, Any]) -> None:
        """Nothing."""

    def on_note(self, sentence: str) -> None:
        """Nothing."""


def make_trainer(run: RunFolder, group: ProcessGroup = ALONE, *, devices: int = 0, watcher: Watcher) -> TrainingRun:
    """A short run of two phases."""
    config = dataclasses.replace(CONFIG, parallel=ParallelConfig(devices=devices))
    run.path.mkdir(exist_ok=True)
    network = smallest_network(MODEL)
    return TrainingRun(config, network, draw_images(44, seed=0), draw_images(10, seed=1), run, watcher, group)


def train(group: ProcessGroup, out: str, process: int, at: int, number: int) -> None:
    """Train, or go on with, the run at `out`; `process` gets the signal `number` after step `at`."""
    watcher = Watcher(at=at, number=number) if group.rank == process else Watcher()
    make_trainer(RunFolder(Path(out)), group, watcher=watcher).train(resume=True)
