"""How the layers of a run are computed: by our kernels in C++ where they can be, by XLA everywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from cxr_jax.models.layers import Lowering
from cxr_jax.models.native.library import native_kernels_work
from cxr_jax.training.steps import Precision


def choose_lowering(precision: Precision, devices: Sequence[jax.Device], backend: str) -> Lowering:
    """The fastest lowering for activations in `precision` on `devices`.

    The native kernels know bfloat16 alone, and XLA cannot share a call of theirs among devices: each of pmap's programs
    runs on one, jit's on all.
    """
    alone = len(devices) == 1 or backend == "pmap"
    suits = precision == "bf16" and alone and all(device.platform == "cpu" for device in devices)
    return "native" if suits and native_kernels_work() else "fast"
