"""What the activations of a run are computed in, and by which kernels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax

from cxr_jax.inference.forward import Precision
from cxr_jax.models.kernels.native.building import kernel_instructions
from cxr_jax.models.kernels.native.library import native_kernels_work, why_not
from cxr_jax.process import KERNELS_SWITCH
from cxr_jax.training.precision_table import faster_way, shipped_rows

AskedPrecision = Literal["auto"] | Precision
"""What a config can ask for."""


@dataclass(frozen=True)
class Choice:
    """The precision of a run's activations; `why`, as a clause, where nobody asked for it and there was a choice."""

    precision: Precision
    why: str = ""


@dataclass(frozen=True)
class Activations:
    """What the activations of a planned run are computed in, and by what."""

    precision: Precision
    native_kernels: bool  # through the kernels in C++
    why: str = ""  # the precision was chosen, as a clause; empty where it was asked for
    note: str = ""  # why it is slower than it could be, as a sentence; empty if it is not

    @property
    def kernels(self) -> str:
        """What computes them, in words."""
        return "native kernels" if self.native_kernels else "XLA"

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a person should know of them; nothing where they are float32 without a reason to tell."""
        told = [self.note] if self.note else []
        if self.precision != "float32" or self.why:
            kernels = " by native kernels" if self.native_kernels else ""
            rest = "" if self.precision == "float32" else ", all else in float32"
            told.insert(0, f"Activations in {self.precision}{kernels}{rest}{f': {self.why}' if self.why else ''}")
        return tuple(told)


def settle_activations(
    asked: AskedPrecision,
    devices: Sequence[jax.Device],
    backend: Literal["jit", "pmap"],
    network: str,
    *,
    natively: bool = True,
    recorded: Precision | None = None,
) -> Activations:
    """Returns how a run computes its activations, by the arguments of `choose_precision` and what is recorded.

    A run that goes on keeps the precision that it was `recorded` to be trained in, unless another is asked for.
    """
    if asked == "auto" and recorded is not None:
        asked, choice, measured = recorded, Choice(recorded, "as this run was trained until now"), False
    else:
        choice = choose_precision(asked, devices, backend, network, natively=natively)
        measured = bool(choice.why)
    return Activations(
        choice.precision,
        natively and takes_native_kernels(choice.precision, devices, backend),
        choice.why,
        missing_kernels(asked, devices, backend) if natively and not measured else "",
    )


def choose_precision(
    asked: AskedPrecision,
    devices: Sequence[jax.Device],
    backend: Literal["jit", "pmap"],
    network: str,
    *,
    natively: bool = True,
) -> Choice:
    """Returns the precision of activations on `devices`, by itself the one that was measured to be the faster.

    `network` is the name of the network, and `natively` says whether it knows the native kernels. bf16 is the faster
    one on GPUs and TPUs. On a CPU, bfloat16 is fast through the native kernels alone, and these are faster than float32
    for some processors and networks only.
    """
    if asked != "auto":
        return Choice(asked)
    if all(device.platform != "cpu" for device in devices):
        return Choice("bf16")
    if not (natively and _suits_kernels(devices, backend)) or os.environ.get(KERNELS_SWITCH) == "off":
        return Choice("float32")
    instructions = kernel_instructions()
    if not instructions:
        return Choice("float32")
    verdict = faster_way(shipped_rows(), instructions, network)
    if not verdict.natively:
        return Choice("float32", verdict.why)
    return Choice("bf16", verdict.why) if native_kernels_work() else Choice("float32")


def takes_native_kernels(precision: Precision, devices: Sequence[jax.Device], backend: Literal["jit", "pmap"]) -> bool:
    """Returns whether activations in `precision` are to go through the native kernels on `devices`.

    They know bfloat16 on CPUs alone, and XLA cannot share a call of theirs among devices: each of pmap's programs runs
    on one device, jit's on all. At the first call they are compiled, which takes some seconds once for a machine.
    """
    return precision == "bf16" and _suits_kernels(devices, backend) and native_kernels_work()


def _suits_kernels(devices: Sequence[jax.Device], backend: Literal["jit", "pmap"]) -> bool:
    """Returns whether every program that runs is one of a single CPU device."""
    alone = len(devices) == 1 or backend == "pmap"
    return alone and all(device.platform == "cpu" for device in devices)


def missing_kernels(asked: AskedPrecision, devices: Sequence[jax.Device], backend: Literal["jit", "pmap"]) -> str:
    """Returns why training on CPU devices is slower than it could be, as a sentence; empty if it is not.

    Where float32 was asked for, the kernels are not needed, and are not compiled. Several devices of this process that
    share a program cannot use them, and one device has all cores: that is what is recommended then.
    """
    wanted = asked != "float32" and os.environ.get(KERNELS_SWITCH) != "off"
    if not wanted or devices[0].platform != "cpu":
        return ""
    precision = "float32" if asked == "auto" else asked
    if len(devices) > 1:
        alone = backend == "pmap" or jax.process_count() > 1
        return "" if alone else _one_device_instead(precision, len(devices))
    if native_kernels_work():
        return ""
    return f"Activations in {precision} without native kernels, at about half the speed: {why_not()}"


def _one_device_instead(precision: Precision, devices: int) -> str:
    return (
        f"{devices} CPU devices share each step through XLA in {precision}, without native kernels. One device has all "
        "cores and can use them: --parallel.devices 1"
    )
