"""What tests need to watch runs of training and to compare them."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import Any

import numpy as np
import optax

from cxr_jax.checkpoints import read_newest
from cxr_jax.config.schema import AugmentationConfig, OptimizerConfig
from cxr_jax.data.image_set import ImageSet
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.training.loop import LAST, Trainer
from cxr_jax.training.network import Network
from cxr_jax.training.optimizer import make_optimizer
from cxr_jax.training.progress import Plan, Progress
from cxr_jax.training.steps import StepRules

TIMINGS = {"seconds", "images_per_second"}


SIZE = 32


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


def rules_of(network: Network, **changes: Any) -> StepRules:
    """Rules of a step that augments, weighs the classes and smooths the labels, under `changes`."""
    optimizer = make_optimizer(OptimizerConfig(), optax.constant_schedule(0.05), network.params)
    rules = StepRules(
        graphdef=network.graphdef,
        optimizer=optimizer,
        mean=network.mean,
        std=network.std,
        augmentation=AugmentationConfig(horizontal_flip=0.5, rotation=10),
        class_weights=(0.7, 1.6),
        label_smoothing=0.1,
        batch_statistics=True,
        seed=3,
    )
    return dataclasses.replace(rules, **changes)


class Watcher:
    """Remembers what it is told, and can send this process a signal after a step."""

    def __init__(self, *, signal_at: int = 0, number: int = signal.SIGINT) -> None:
        self.plan: Plan | None = None
        self.lines, self.notes = [], []
        self.signal_at, self.number = signal_at, number

    def on_start(self, plan: Plan, progress: Progress) -> None:
        self.plan, self.started_at = plan, progress.step

    def on_train(self, line: dict) -> None:
        self.lines.append(line)
        if line["step"] == self.signal_at:
            os.kill(os.getpid(), self.number)

    def on_validation(self, line: dict) -> None:
        self.lines.append(line)

    def on_note(self, sentence: str) -> None:
        self.notes.append(sentence)


def arrays_of(trainer: Trainer) -> dict[str, np.ndarray]:
    checkpoint = read_newest(trainer.run.checkpoints / LAST)
    return {name: np.asarray(value) for name, value in checkpoint.arrays.items()}


def lines_of(trainer: Trainer, *kinds: str) -> list[dict]:
    lines = [line for line in read_metrics(trainer.run.metrics) if line["kind"] in kinds]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def assert_equal_runs(first: Trainer, second: Trainer) -> None:
    left, right = arrays_of(first), arrays_of(second)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert lines_of(first, "train", "validation", "end") == lines_of(second, "train", "validation", "end")
