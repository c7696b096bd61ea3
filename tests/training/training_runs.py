"""What tests need to watch runs of training and to compare them."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from cxr_jax.checkpoints import read_newest
from cxr_jax.config.schema import (
    AugmentationConfig,
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
    TrainingConfig,
)
from cxr_jax.devices import replicate
from cxr_jax.images.image_set import ImageSet
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.training import run as runs
from cxr_jax.training.compile import Backend, CompiledStep
from cxr_jax.training.feed import Feed, HostFeed, make_feed
from cxr_jax.training.network import Network
from cxr_jax.training.plan import Plan, plan_run
from cxr_jax.training.processes import ALONE, ProcessGroup
from cxr_jax.training.progress import Progress
from cxr_jax.training.saving import LAST
from cxr_jax.training.state import TrainState, new_state, state_arrays
from cxr_jax.training.step import DeviceBatch, Moment, StepMetrics, moment_of, train_step

TIMINGS = {"seconds", "images_per_second"}


SIZE = 32

HEAD = PhaseConfig("head", 1, trainable=("classifier",), batch_norm="frozen", optimizer=OptimizerConfig(0.1))
PHASES = (HEAD, PhaseConfig("all", 1, optimizer=OptimizerConfig(0.01)))
"""A phase of the classifier alone, on features that are computed once, and one of the whole network."""


def draw_images(count: int, seed: int) -> ImageSet:
    """Noise that is brighter in the middle where the label is 1: learnable in a few steps."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.int32)
    images = random.integers(0, 120, (count, SIZE, SIZE))
    images[labels == 1, 8:24, 8:24] += 100
    return ImageSet(
        images=images.astype(np.uint8),
        labels=labels,
        ids=np.arange(count, dtype=np.int32),
        files=tuple(f"{index}.jpeg" for index in range(count)),
        groups=tuple(str(index) for index in range(count)),
        subtypes=tuple("normal" if label == 0 else "bacteria" for label in labels),
    )


class Steps:
    """A step of training on drawn images, by itself: what it is planned as, its first state, and its program."""

    def __init__(
        self,
        network: Network,
        *,
        images: ImageSet | None = None,
        class_weights: tuple[float, ...] = (0.7, 1.6),
        native_kernels: bool = False,
        **sections: Any,
    ) -> None:
        """Plans steps that augment, weigh the classes and smooth the labels, under `sections` of the config."""
        self.network = network
        self.images = draw_images(16, seed=0) if images is None else images
        defaults = {
            "data": DataConfig(image_size=SIZE),
            "augmentation": AugmentationConfig(horizontal_flip=0.5, rotation=10),
            "loss": LossConfig(label_smoothing=0.1),
            "optimizer": OptimizerConfig(0.05),
            "training": TrainingConfig(batch_size=16, evaluation_batch_size=16, seed=3, precision="float32"),
            "parallel": ParallelConfig(devices=1),
        }
        plan = plan_run(Config(**{**defaults, **sections}), network, self.images, self.images)
        activations = dataclasses.replace(plan.activations, native_kernels=native_kernels)
        self.plan = dataclasses.replace(plan, class_weights=class_weights, activations=activations)
        (self.phase,) = self.plan.phases

    def state(self, step: int = 0) -> TrainState:
        """The state before the first step."""
        averages = self.plan.config.training.ema_decay > 0
        network, optimizer = self.network, self.phase.optimizer(self.phase.schedule)
        trainable = self.phase.trainable
        return new_state(network.params, network.batch_stats, trainable, optimizer, step=step, averages=averages)

    def once(self, state: TrainState, batch: DeviceBatch, epoch: int = 0) -> tuple[TrainState, StepMetrics]:
        """What the pure function gives for one step."""
        return train_step(state, batch, self.moment(epoch), network=self.network, plan=self.plan, phase=self.phase)

    def moment(self, epoch: int = 0) -> Moment:
        """What else decides a step: the seed of the plan, the epoch, and the rate, which stays as it is at first."""
        dtype = next(iter(self.network.params.values())).dtype
        return moment_of(self.plan.config.training.seed, epoch, float(self.phase.schedule(0)), dtype)

    def compiled(self, feed: Feed | None = None, first_step: int = 0) -> CompiledStep:
        """The step as a program for the devices and the backend of the plan."""
        feed = feed or HostFeed(self.images)
        return runs.compile_train_step(self.plan, self.network, self.phase, self.state(), feed, first_step=first_step)

    def replicated(self, step: int = 0) -> TrainState:
        """The state before the first step, on the devices of the plan."""
        return replicate(self.state(step), self.plan.devices)


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
    steps: int = 20,
    group: ProcessGroup = ALONE,
    learning_rate: float = 0.05,
    on_devices: bool = False,
    batch_norm: Literal["train", "frozen"] = "train",
    accumulation_steps: int = 1,
    **sections: Any,
) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of steps on batches of 16 drawn images, two an epoch, and all arrays of the state after them."""
    taken = Steps(
        network,
        # not a multiple of the devices
        images=draw_images(41, seed=0),
        optimizer=OptimizerConfig(learning_rate),
        training=TrainingConfig(
            batch_size=16,
            evaluation_batch_size=16,
            seed=3,
            precision="float32",
            batch_norm=batch_norm,
            accumulation_steps=accumulation_steps,
        ),
        parallel=ParallelConfig(backend, devices),
        **sections,
    )
    feed = make_feed("device" if on_devices else "host", taken.images, taken.plan.devices, group)
    step, state, losses = taken.compiled(feed), taken.replicated(), []
    for epoch in range(steps // 2):
        for batch in feed.batches(batch_size=16, seed=1, epoch=epoch, share=group.share):
            state, metrics = step(state, step.place(batch), taken.moment(epoch))
            losses.append(float(metrics.loss))
            group.agree_to_stop(None)
    return losses, {name: np.asarray(value) for name, value in state_arrays(state).items()}


def batch_of(images: ImageSet, rows: slice | np.ndarray = slice(16)) -> DeviceBatch:
    """The named rows of `images`, on the host."""
    return DeviceBatch(images.images[rows], images.labels[rows], images.ids[rows])


class Watcher:
    """Remembers what it is told, and can send this process a signal after a step."""

    def __init__(self, *, signal_at: int = 0, number: int = signal.SIGINT) -> None:
        self.plan: Plan | None = None
        self.lines, self.features, self.notes = [], [], []
        self.signal_at, self.number = signal_at, number

    def on_start(self, plan: Plan, progress: Progress) -> None:
        self.plan, self.started_at = plan, progress.step

    def on_features(self, done: int, total: int) -> None:
        self.features.append((done, total))

    def on_train(self, line: dict) -> None:
        self.lines.append(line)
        if line["step"] == self.signal_at:
            os.kill(os.getpid(), self.number)

    def on_validation(self, line: dict) -> None:
        self.lines.append(line)

    def on_note(self, sentence: str) -> None:
        self.notes.append(sentence)


@dataclasses.dataclass
class TrainingRun:
    """A run on drawn images, which can be trained."""

    config: Config
    network: Network
    train_set: ImageSet
    validation_set: ImageSet
    run: RunFolder
    observer: Any
    group: ProcessGroup = ALONE

    def __post_init__(self) -> None:
        self.plan = plan_run(self.config, self.network, self.train_set, self.validation_set)

    def train(self, *, resume: bool = False) -> str:
        """Trains to the end, and returns why it ended."""
        return runs.train(
            self.plan,
            self.network,
            self.train_set,
            self.validation_set,
            self.run,
            self.observer,
            self.group,
            resume=resume,
        )


def arrays_of(trainer: TrainingRun) -> dict[str, np.ndarray]:
    checkpoint = read_newest(trainer.run.checkpoints / LAST)
    return {name: np.asarray(value) for name, value in checkpoint.arrays.items()}


def lines_of(trainer: TrainingRun, *kinds: str) -> list[dict]:
    lines = [line for line in read_metrics(trainer.run.metrics) if line["kind"] in kinds]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def assert_equal_runs(first: TrainingRun, second: TrainingRun) -> None:
    left, right = arrays_of(first), arrays_of(second)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert lines_of(first, "train", "validation", "end") == lines_of(second, "train", "validation", "end")
