"""The native kernels of a run, begun to be compiled before jax is imported: they are ready when the run is planned."""

from __future__ import annotations

import os
import platform

from cxr_jax.config.schema import Config
from cxr_jax.models.kernels.native.building import COMMON, begin_to_build, kernels_folder
from cxr_jax.process import KERNELS_SWITCH, has_accelerator


def begin_kernels(config: Config) -> None:
    """Begins to compile the kernels in the background where a run of `config` seems to need them; returns at once.

    Whether it needs them is known when it is planned. Where it does not, processor time is lost, once on a machine.
    """
    folder = kernels_folder()
    if folder is not None and os.environ.get(KERNELS_SWITCH) != "off" and _seem_needed(config):
        begin_to_build(COMMON, folder)


def _seem_needed(config: Config) -> bool:
    # of other processors nothing is measured, and float32 is chosen
    suits = config.training.precision == "bf16" or (
        config.training.precision == "auto" and platform.machine().lower() in ("x86_64", "amd64")
    )
    parallel = config.parallel
    several = parallel.devices > 1 or parallel.world_size > 1 or os.environ.get("JAX_NUM_CPU_DEVICES", "1") != "1"
    alone = parallel.backend == "pmap" or not several
    return suits and alone and not has_accelerator(os.environ)
