"""What is measured against what."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Work = Literal["train", "inference"]
Implementation = Literal["cxr_jax", "plain", "timm"]
"""`plain` is our network with XLA's stock convolutions, as `nnx.Conv` has them; `timm` the same network in PyTorch."""

Backend = Literal["jit", "pmap", "eager", "compile"]
"""The first two are ours, the last two PyTorch's."""

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Case:
    """One program on one number of cores."""

    model: str
    image_size: int  # side in pixels
    batch_size: int
    work: Work
    threads: int  # cores that the process is held to
    implementation: Implementation = "cxr_jax"
    backend: Backend = "jit"
    precision: Precision = "float32"
    devices: int = 0  # devices that share the batch; 0: all that jax finds
    preload: str = ""  # path of a library to load before all others, such as tcmalloc

    @property
    def task(self) -> str:
        """What is computed, whoever does it."""
        return f"{self.model}, {self.image_size} px, batch {self.batch_size}, {self.work}"

    @property
    def way(self) -> str:
        """Who computes it, and how."""
        name = {"cxr_jax": "cxr_jax", "plain": "cxr_jax, plain convolutions", "timm": "timm, channels_last"}
        preload = f", {Path(self.preload).name.split('.')[0]}" if self.preload else ""
        return f"{name[self.implementation]}, {self.backend}, {self.precision}{preload}"


@dataclass(frozen=True)
class Contest:
    """Our case, and those that run alternately with it."""

    case: Case
    opponents: tuple[Case, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that one call measures: all combinations of the lists."""

    models: tuple[str, ...]
    image_sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    works: tuple[Work, ...]
    backends: tuple[Backend, ...]
    threads: tuple[int, ...]
    devices: int = 0
    plain: bool = False
    against_timm: bool = False
    precisions: tuple[Precision, ...] = ("float32",)  # of our activations
    torch_compile: bool = False
    preload: str = ""

    def contests(self) -> Iterator[Contest]:
        """The contests in order; further backends, plain convolutions and PyTorch's modes are opponents."""
        grid = itertools.product(self.models, self.image_sizes, self.batch_sizes, self.works, self.threads)
        for model, image_size, batch_size, work, threads in grid:
            shared = {
                "model": model,
                "image_size": image_size,
                "batch_size": batch_size,
                "work": work,
                "threads": threads,
            }
            # evaluation runs under jit whatever the training step is compiled by
            backends = self.backends if work == "train" else ("jit",)
            ours = [
                Case(**shared, backend=backend, precision=precision, devices=self.devices)
                for precision, backend in itertools.product(self.precisions, backends)
            ]
            opponents = ours[1:]
            if self.plain:
                opponents.append(dataclasses.replace(ours[0], implementation="plain"))
            opponents += self._modes_of_timm(shared)
            yield Contest(ours[0], tuple(opponents))

    def _modes_of_timm(self, shared: dict) -> list[Case]:
        if not self.against_timm:
            return []
        backends = ("eager", "compile") if self.torch_compile else ("eager",)
        preloads = ("", self.preload) if self.preload else ("",)
        return [
            Case(**shared, implementation="timm", backend=backend, precision=precision, preload=preload)
            for preload, backend, precision in itertools.product(preloads, backends, ("float32", "bfloat16"))
        ]


@dataclass(frozen=True)
class DepthwiseCase:
    """The depthwise convolutions of one network at one size, each by itself."""

    model: str
    image_size: int  # side in pixels
    batch_size: int
    threads: int  # cores that the process is held to
    precision: Precision = "float32"

    @property
    def task(self) -> str:
        """What is computed."""
        return f"{self.model}, {self.image_size} px, batch {self.batch_size}, {self.precision}, depthwise convolutions"


@dataclass(frozen=True)
class EpochCase:
    """One epoch of training one network."""

    model: str
    image_size: int  # side in pixels
    batch_size: int
    threads: int  # cores that the process is held to
    dataset: str  # name or path of prepared data
    steps: int = 0  # only so many of the epoch's steps; 0: all
    backend: Backend = "jit"
    precision: Precision = "float32"
    devices: int = 0  # 0: all

    @property
    def task(self) -> str:
        """What is computed."""
        part = f"{self.steps} steps of an epoch" if self.steps else "an epoch"
        return (
            f"{self.model}, {self.image_size} px, batch {self.batch_size}, {self.precision}, {self.backend}, {part} of "
            f"{Path(self.dataset).name}"
        )


@dataclass(frozen=True)
class StartupCase:
    """One start of `cxr-jax train`."""

    model: str
    image_size: int  # side in pixels
    batch_size: int
    threads: int  # cores that the process is held to
    dataset: str  # name or path of prepared data
    weights: str = ""  # file of weights to begin with; empty: random ones

    @property
    def task(self) -> str:
        """What is started."""
        weights = ", with weights" if self.weights else ""
        name = Path(self.dataset).name
        return f"{self.model}, {self.image_size} px, batch {self.batch_size}, start of train on {name}{weights}"
