"""What is measured against what."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Work = Literal["train", "inference", "epoch", "startup"]
"""The first two are steps, which opponents can do too; the last two are whole works of `cxr-jax train`."""

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
    dataset: str = ""  # name or path of prepared data; of an epoch and a start
    weights: str = ""  # file of weights that a start begins with; empty: random ones
    steps: int = 0  # only so many steps of an epoch; 0: all

    @property
    def task(self) -> str:
        """What is computed, whoever does it."""
        work = str(self.work)
        if work == "epoch":
            part = f"{self.steps} steps of an epoch" if self.steps else "an epoch"
            work = f"{self.precision}, {self.backend}, {part} of {Path(self.dataset).name}"
        elif work == "startup":
            work = f"start of train on {Path(self.dataset).name}{', with weights' if self.weights else ''}"
        return f"{self.model}, {self.image_size} px, batch {self.batch_size}, {work}"

    @property
    def way(self) -> str:
        """Who computes it, and how."""
        name = {"cxr_jax": "cxr_jax", "plain": "cxr_jax, plain convolutions", "timm": "timm, channels_last"}
        preload = f", {Path(self.preload).name.split('.')[0]}" if self.preload else ""
        return f"{name[self.implementation]}, {self.backend}, {self.precision}{preload}"


@dataclass(frozen=True)
class Contest:
    """Our case, and those that take turns with it."""

    case: Case
    opponents: tuple[Case, ...] = ()


@dataclass(frozen=True)
class Effort:
    """How long everything is measured."""

    warm_up: int  # steps before the first turn
    rounds: int  # turns of each process; starts
    steps: int  # fewest counted steps of a turn
    seconds: float  # shortest time of a turn
    limit: float = 120.0  # seconds after which a turn is given up; 0: never


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
    dataset: str = ""
    weights: str = ""
    steps: int = 0  # of an epoch

    def contests(self) -> Iterator[Contest]:
        """Yields the contests in order; further backends, plain convolutions and PyTorch's modes are opponents."""
        for shared in itertools.product(self.models, self.image_sizes, self.batch_sizes, self.works, self.threads):
            if shared[3] == "startup":
                yield Contest(Case(*shared, dataset=self.dataset, weights=self.weights))
                continue
            # evaluation runs under jit whatever the training step is compiled by
            backends = ("jit",) if shared[3] == "inference" else self.backends
            ours = [
                Case(*shared, backend=backend, precision=precision, devices=self.devices)
                for precision, backend in itertools.product(self.precisions, backends)
            ]
            if shared[3] == "epoch":
                yield from (Contest(dataclasses.replace(c, dataset=self.dataset, steps=self.steps)) for c in ours)
                continue
            plain = [dataclasses.replace(ours[0], implementation="plain")] if self.plain else []
            yield Contest(ours[0], (*ours[1:], *plain, *self._modes_of_timm(shared)))

    def _modes_of_timm(self, shared: tuple) -> Iterator[Case]:
        if self.against_timm:
            backends = ("eager", "compile") if self.torch_compile else ("eager",)
            preloads = ("", self.preload) if self.preload else ("",)
            for preload, backend, precision in itertools.product(preloads, backends, ("float32", "bfloat16")):
                yield Case(*shared, implementation="timm", backend=backend, precision=precision, preload=preload)
