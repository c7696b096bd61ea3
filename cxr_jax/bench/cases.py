"""What is measured against what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Work = Literal["train", "inference", "epoch", "startup"]
"""The first two are steps, which opponents can do too; the last two are whole works of `cxr-jax train`."""

Implementation = Literal["cxr_jax", "plain", "timm", "zentorch", "onnxruntime", "openvino"]
"""`plain` is our network with XLA's stock convolutions, as in `nnx.Conv`; `timm` is the same network in PyTorch, and
`zentorch` that one compiled by AMD's extension; the last two run the ONNX file that `cxr-jax export` writes of it."""

RIVALS = ("timm", "zentorch", "onnxruntime", "openvino")
"""Programs that are not ours; all but the first know inference alone."""

OF_PYTORCH = ("timm", "zentorch")
"""Those of them that run timm's network."""

Backend = Literal["jit", "pmap", "eager", "compile", "onnx"]
"""The first two are ours, the next two PyTorch's, the last one is that of the runtimes."""

Precision = Literal["float32", "bfloat16"]

Layout = Literal["channels_last", "contiguous"]
"""Of PyTorch's images and weights in memory; the second has the channels before rows and columns."""


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
    layout: Layout = "channels_last"  # of PyTorch alone
    devices: int = 0  # devices that share the batch; 0: all that jax finds
    preload: str = ""  # path of a library to load before all others, such as tcmalloc
    dataset: str = ""  # name or path of prepared data; of an epoch and a start
    weights: str = ""  # file of weights that a start begins with; empty: random ones

    @property
    def task(self) -> str:
        """What is computed, whoever does it."""
        work = str(self.work)
        if work == "epoch":
            work = f"{self.precision}, {self.backend}, an epoch of {Path(self.dataset).name}"
        elif work == "startup":
            work = f"start of train on {Path(self.dataset).name}{', with weights' if self.weights else ''}"
        return f"{self.model}, {self.image_size} px, batch {self.batch_size}, {work}"

    @property
    def name(self) -> str:
        """What is computed, and how."""
        return f"{self.task}, {self.way}"

    @property
    def way(self) -> str:
        """Who computes it, and how."""
        names = {"plain": "cxr_jax, plain convolutions", "openvino": "OpenVINO"}
        preload = f", {Path(self.preload).name.split('.')[0]}" if self.preload else ""
        name = names.get(self.implementation, self.implementation)
        if self.implementation in OF_PYTORCH:
            name = f"{name}, {self.layout}"
        return f"{name}, {self.backend}, {self.precision}{preload}"


@dataclass(frozen=True)
class Contest:
    """Our case, and those that take turns with it."""

    case: Case
    opponents: tuple[Case, ...] = ()


@dataclass(frozen=True)
class Effort:
    """How long everything is measured."""

    rounds: int = 5  # turns of each process; starts with and without compiled programs
    steps: int = 3  # fewest steps of a turn
    seconds: float = 1.0  # shortest time of a turn
    # seconds after which a turn is given up and its case passed over (0: 120; an epoch or a start then has no limit)
    limit: float = 0.0
    # what a step's time is: on the clock, or the processor's time for the process, which other work disturbs less; the
    # latter with one thread
    clock: Literal["wall", "cpu"] = "wall"
