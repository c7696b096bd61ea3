"""One of several processes that train together, started by tests: `process_worker.py WORK OUT PORT PROCESSES NUMBER`.

WORK is `steps`, which takes 20 steps of each backend with images on the host and on the devices, and stores what they
gave, or `slow`, which trains a run and pauses after each step.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from training_runs import SIZE, Steps, TrainingRun, draw_images

from cxr_jax.config.schema import (
    AugmentationConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
    TrainingConfig,
    ValidationConfig,
)
from cxr_jax.errors import UserError
from cxr_jax.process import leave_with
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.compile import Backend
from cxr_jax.training.feed import make_feed
from cxr_jax.training.network import Network, build_network
from cxr_jax.training.processes import ALONE, ProcessGroup, joined
from cxr_jax.training.state import state_arrays

BATCH, STEPS = 16, 20
MODEL = ModelConfig(name="mobilenetv2_tiny", dropout=0.2)
CONFIG = Config(
    data=DataConfig(image_size=SIZE),
    model=MODEL,
    training=TrainingConfig(batch_size=8, evaluation_batch_size=8),
    validation=ValidationConfig(every_iterations=2),
    phases=(
        PhaseConfig("head", 1, trainable=("classifier",), batch_norm="frozen", optimizer=OptimizerConfig(0.1)),
        PhaseConfig("all", 2, augmentation=AugmentationConfig(horizontal_flip=0.5)),
    ),
)


def doubled(network: Network) -> Network:
    """`network` in float64, where sums in another order cannot push an activation over a kink of ReLU6."""
    params, batch_stats = (
        {name: jnp.asarray(np.asarray(value), jnp.float64) for name, value in arrays.items()}
        for arrays in (network.params, network.batch_stats)
    )
    return dataclasses.replace(network, params=params, batch_stats=batch_stats)


def take_steps(
    network: Network,
    devices: int,
    backend: Backend,
    *,
    group: ProcessGroup = ALONE,
    learning_rate: float = 0.05,
    on_devices: bool = False,
    batch_norm: Literal["train", "frozen"] = "train",
    accumulation_steps: int = 1,
    **sections: Any,
) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of STEPS steps on batches of BATCH drawn images, and all arrays of the state after them."""
    steps = Steps(
        network,
        # not a multiple of the devices
        images=draw_images(41, seed=0),
        optimizer=OptimizerConfig(learning_rate),
        training=TrainingConfig(
            batch_size=BATCH,
            evaluation_batch_size=BATCH,
            seed=3,
            precision="float32",
            batch_norm=batch_norm,
            accumulation_steps=accumulation_steps,
        ),
        parallel=ParallelConfig(backend, devices),
        **sections,
    )
    feed = make_feed("device" if on_devices else "host", steps.images, steps.plan.devices, group)
    step, state, losses = steps.compiled(feed), steps.replicated(), []
    for epoch in range(STEPS // 2):
        for batch in feed.batches(batch_size=BATCH, seed=1, epoch=epoch, share=group.share):
            state, metrics = step(state, step.place(batch), epoch)
            losses.append(float(metrics.loss))
            group.agree_to_stop(None)
    return losses, {name: np.asarray(value) for name, value in state_arrays(state).items()}


class Slow:
    """Takes its time after every step, so that a test can end a process in the middle of training."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_start(self, plan: object, progress: object) -> None:
        """Nothing."""

    def on_train(self, line: dict[str, Any]) -> None:
        """Wait."""
        time.sleep(self.seconds)

    def on_validation(self, line: dict[str, Any]) -> None:
        """Nothing."""

    def on_note(self, sentence: str) -> None:
        """Nothing."""


def make_trainer(run: RunFolder, group: ProcessGroup = ALONE, *, slow: float = 0.0, devices: int = 0) -> TrainingRun:
    """A short run of two phases."""
    config = dataclasses.replace(CONFIG, parallel=ParallelConfig(devices=devices))
    run.path.mkdir(exist_ok=True)
    network = build_network(MODEL, seed=0)
    return TrainingRun(config, network, draw_images(44, seed=0), draw_images(10, seed=1), run, Slow(slow), group)


def main() -> int:
    """Do the work that the command line names."""
    work, out, port, processes, number, *more = sys.argv[1:]
    heartbeat = int(more[0]) if more else 20
    parallel = ParallelConfig(
        coordinator=f"127.0.0.1:{port}",
        processes=int(processes),
        process_id=int(number),
        startup_timeout=60,
        heartbeat_timeout=heartbeat,
        step_timeout=600,
    )
    with joined(parallel) as group:
        if work == "steps":
            jax.config.update("jax_enable_x64", True)
            network = doubled(build_network(MODEL, seed=0))
            for backend, on_devices in itertools.product(("jit", "pmap"), (False, True)):
                losses, arrays = take_steps(network, 0, backend, group=group, on_devices=on_devices)
                if group.writes:
                    place = "device" if on_devices else "host"
                    np.savez(f"{out}/{backend}-{place}.npz", losses=losses, **arrays)
        else:
            trainer = make_trainer(RunFolder(Path(out)), group, slow=0.2)
            # which begins anew where there is nothing yet
            trainer.train(resume=True)
    return 0


if __name__ == "__main__":
    code = 0
    try:
        code = main()
    except UserError as error:
        print(error, file=sys.stderr)
        code = error.code
    except KeyboardInterrupt:
        code = 130
    sys.exit(leave_with(code))
