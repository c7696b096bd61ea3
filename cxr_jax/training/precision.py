"""What the activations of a run are computed in, and by which kernels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import jax

from cxr_jax.inference.forward import Precision
from cxr_jax.models.kernels.native.library import native_kernels_work, why_not
from cxr_jax.process import KERNELS_SWITCH

AskedPrecision = Literal["auto"] | Precision
"""What a config can ask for."""


def choose_precision(
    asked: AskedPrecision,
    devices: Sequence[jax.Device],
    backend: Literal["jit", "pmap"],
    *,
    natively: bool = True,
) -> Precision:
    """Returns the precision of activations on `devices`, by itself bf16 wherever it is the faster one.

    That is the case on GPUs and TPUs, and on a CPU if the network can use the native kernels (`natively`). XLA only
    emulates bfloat16 on a CPU.
    """
    if asked != "auto":
        return asked
    on_cpu = any(device.platform == "cpu" for device in devices)
    by_kernels = natively and takes_native_kernels("bf16", devices, backend)
    return "float32" if on_cpu and not by_kernels else "bf16"


def takes_native_kernels(precision: Precision, devices: Sequence[jax.Device], backend: Literal["jit", "pmap"]) -> bool:
    """Returns whether activations in `precision` are to go through the native kernels on `devices`.

    They know bfloat16 on CPUs alone, and XLA cannot share a call of theirs among devices: each of pmap's programs runs
    on one device, jit's on all. At the first call they are compiled, which takes some seconds once for a machine.
    """
    alone = len(devices) == 1 or backend == "pmap"
    suits = precision == "bf16" and alone and all(device.platform == "cpu" for device in devices)
    return suits and native_kernels_work()


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
