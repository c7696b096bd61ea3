#!/usr/bin/env python
"""Measure what a long training and a large data set leave behind: memory, file handles, threads, processes.

The smallest network is trained for 20,000 steps on phantoms, with validations, checkpoints and TensorBoard as in any
run; then 50,000 files, each different, are prepared, decoded and read through once as the batches of an epoch. Prints
a table of each; memory that a program holds for itself is told apart from mapped files, which the kernel may drop.

    .venv/bin/python scripts/long_run.py
    .venv/bin/python scripts/long_run.py --steps 0 --files 5000
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import jax
import numpy as np

from cxr_jax.config.command_line import parse
from cxr_jax.config.schema import (
    AugmentationConfig,
    Config,
    DataConfig,
    ModelConfig,
    ParallelConfig,
    TrainingConfig,
    ValidationConfig,
)
from cxr_jax.data.phantoms.folder import draw_phantom
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import ROOT_VARIABLE
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import run_script
from cxr_jax.images.batches import training_batches
from cxr_jax.images.image_set import ImageSet
from cxr_jax.reporting.live import TensorBoardObserver
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.network import build_network
from cxr_jax.training.plan import plan_run
from cxr_jax.training.run import train

SIDE = 32
"""Of the images, in pixels."""

DRAWN = 100
"""Different phantoms; files beyond that number differ in a comment."""

TRAIN, VALIDATION = 256, 64
"""Images of the run of many steps."""

BATCH_SIZE = 8


@dataclass(frozen=True)
class Options:
    """How much of each."""

    steps: int = 20_000  # 0: no training
    files: int = 50_000  # 0: no preparation
    samples: int = 10  # rows of each table


@dataclass(frozen=True)
class Sample:
    """What the process holds at one moment."""

    seconds: float
    own: float  # MiB of memory that belongs to no file
    mapped: float  # MiB of files mapped
    handles: int
    threads: int
    children: int
    arrays: int  # live arrays of jax

    @classmethod
    def take(cls, began: float) -> Sample:
        """Measure this process; `began` is the `time.perf_counter` from which seconds count."""
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line
        )
        tasks = list(Path("/proc/self/task").iterdir())
        children = [(task / "children").read_text(encoding="utf-8").split() for task in tasks if task.is_dir()]
        return cls(
            seconds=time.perf_counter() - began,
            own=int(status["RssAnon"].split()[0]) / 1024,
            mapped=int(status["RssFile"].split()[0]) / 1024,
            handles=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            threads=len(tasks),
            children=sum(map(len, children)),
            arrays=len(jax.live_arrays()),
        )


class Sampler:
    """Prints a row of a table whenever a certain share of the work is done; can observe a training run."""

    def __init__(self, what: str, total: int, samples: int) -> None:
        self._total, self._every = total, max(1, total // samples)
        self._began, self._done = time.perf_counter(), 0
        print(f"\n{what:>12}", *(f"{field.name:>9}" for field in fields(Sample)))
        self.print_row()

    def advance(self, count: int = 1) -> None:
        """Count work as done, and measure where a row is due."""
        before, self._done = self._done, self._done + count
        if before // self._every != self._done // self._every or (before < self._total <= self._done):
            self.print_row()

    def on_start(self, plan: object, progress: object) -> None:
        """Training begins."""

    def on_train(self, line: dict) -> None:
        """A step was done."""
        self.advance()

    def on_validation(self, line: dict) -> None:
        """The network was validated."""

    def on_note(self, sentence: str) -> None:
        """Print what a person should know."""
        print(sentence)

    def print_row(self) -> None:
        """Measure and print."""
        sample = Sample.take(self._began)
        values = (getattr(sample, field.name) for field in fields(Sample))
        print(
            f"{self._done:>12}", *(f"{value:>9.1f}" if isinstance(value, float) else f"{value:>9}" for value in values)
        )
        sys.stdout.flush()


class Both:
    """Tells a run's progress to a sampler and to TensorBoard's event files."""

    def __init__(self, *observers: object) -> None:
        self._observers = observers

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*arguments: object) -> None:
            for observer in self._observers:
                getattr(observer, name)(*arguments)

        return tell


def drawn(count: int, seed: int) -> ImageSet:
    """`count` phantoms of SIDE x SIDE pixels, every second with an opacity."""
    labels = (np.arange(count) % 2).astype(np.int32)
    kinds = ("normal", "bacteria")
    pictures = (
        draw_phantom(kinds[label], index, index, seed=seed, image_size_range=(48, 64))
        for index, label in enumerate(labels)
    )
    return ImageSet(
        images=np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in pictures]),
        labels=labels,
        ids=np.arange(count, dtype=np.int32),
        files=tuple(f"{index}.jpeg" for index in range(count)),
        groups=tuple(map(str, range(count))),
        subtypes=tuple(kinds[label] for label in labels),
    )


def train_long(folder: Path, options: Options) -> None:
    """Trains for `options.steps` steps, validated and saved every 250."""
    config = Config(
        data=DataConfig(image_size=SIDE),
        model=ModelConfig(name="mobilenetv2_tiny", dropout=0.1),
        augmentation=AugmentationConfig(horizontal_flip=0.5),
        training=TrainingConfig(
            epochs=max(1, options.steps * BATCH_SIZE // TRAIN), batch_size=BATCH_SIZE, evaluation_batch_size=32
        ),
        validation=ValidationConfig(every_iterations=250),
        parallel=ParallelConfig(devices=1),
    )
    run = RunFolder.create(folder / "run")
    network = build_network(config.model, config.training.seed)
    sampler = Sampler("steps", config.training.epochs * TRAIN // BATCH_SIZE, options.samples)
    events = TensorBoardObserver(run)
    train_set, validation_set = drawn(TRAIN, 0), drawn(VALIDATION, 1)
    plan = plan_run(config, network, train_set, validation_set)
    train(plan, network, train_set, validation_set, run, Both(sampler, events))
    events.close()
    print("after the end:")
    sampler.print_row()


def write_files(folder: Path, count: int) -> None:
    """Write `count` phantoms as JPEGs of a few kB; beyond DRAWN they are copies under another comment and name."""
    encoded = [
        cv2.imencode(".jpg", draw_phantom(kind, number, number, image_size_range=(48, 64)))[1].tobytes()
        for kind in ("normal", "bacteria")
        for number in range(DRAWN // 2)
    ]
    for split, label in ((split, label) for split in ("train", "test") for label in ("NORMAL", "PNEUMONIA")):
        (folder / split / label).mkdir(parents=True)
    for number in range(count):
        sick = number % 2
        split = "test" if number % 10 == 9 else "train"
        name = f"PNEUMONIA/person{number}_bacteria_{number}.jpeg" if sick else f"NORMAL/IM-{number:06d}-0001.jpeg"
        data = encoded[sick * (DRAWN // 2) + number % (DRAWN // 2)]
        comment = f"{number}".encode()
        segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
        (folder / split / name).write_bytes(data[:2] + segment + data[2:])


def read_files(folder: Path, options: Options) -> None:
    """Prepare `options.files` files, decode them and read them through as an epoch's batches."""
    write_files(folder / "files", options.files)
    os.environ[ROOT_VARIABLE] = str(folder / "prepared")

    @contextmanager
    def track(description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield Sampler(description, total, options.samples).advance

    prepared = prepare(folder / "files", name="files", track=track).prepared
    images = load_split(prepared, DataConfig(image_size=SIDE, validation="official"), "train", track=track)
    sampler = Sampler("images", len(images), options.samples)
    for batch in training_batches(images, batch_size=BATCH_SIZE, seed=0, epoch=0):
        sampler.advance(len(batch.labels))


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    options = parse(Options, arguments, prog="long_run.py", description=__doc__)
    with tempfile.TemporaryDirectory(prefix="long-run-") as folder:
        if options.steps:
            train_long(Path(folder), options)
        if options.files:
            read_files(Path(folder), options)
    return 0


if __name__ == "__main__":
    run_script(main)
