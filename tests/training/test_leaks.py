"""Training leaves nothing behind, and holds no more after many steps than after a few."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from pathlib import Path

import jax
import pytest
from training_runs import Watcher

from cxr_jax.config.schema import ValidationConfig


def handles() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def children() -> list[str]:
    tasks = Path("/proc/self/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


def own_memory() -> int:
    """Bytes that belong to no file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


@dataclasses.dataclass(frozen=True)
class Holdings:
    """What this process holds once its garbage is collected."""

    arrays: int  # live arrays of jax
    bytes: int  # of these
    handles: int
    threads: int
    children: tuple[str, ...]

    @classmethod
    def now(cls) -> Holdings:
        gc.collect()
        arrays = jax.live_arrays()
        return cls(
            arrays=len(arrays),
            bytes=sum(array.nbytes for array in arrays),
            handles=handles(),
            threads=threading.active_count(),
            children=tuple(children()),
        )


class Meter(Watcher):
    """Measures the process after certain steps, at rest."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps, self.holdings, self.memory = steps, [], []

    def on_train(self, line: dict) -> None:
        if line["step"] in self.steps:
            # a checkpoint on its way to the disk holds what it saves
            time.sleep(1)
            self.holdings.append(Holdings.now())
            self.memory.append(own_memory())


@pytest.mark.slow
def test_hundreds_of_steps_hold_no_more_than_the_first(trainer, config):
    changes = {
        "training": dataclasses.replace(config.training, epochs=80),
        "validation": ValidationConfig(every_iterations=75),
    }
    # what the first run of a process makes once, such as the threads of orbax, stays
    trainer("first").train()
    before = Holdings.now()
    meter = Meter(90, 390)
    trainer("long", meter, **changes).train()
    early, late = meter.holdings
    assert late == early
    assert meter.memory[1] <= meter.memory[0] + 20 * 2**20
    assert Holdings.now() == before
