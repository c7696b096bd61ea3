"""Our own steps as workloads: the very functions that training and evaluation compile."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
from jax.stages import Compiled

from cxr_jax.bench.cases import Case
from cxr_jax.bench.workload import DISTINCT_BATCHES, Workload, noise_images
from cxr_jax.config.schema import Config, DataConfig, ModelConfig, OptimizerConfig, ParallelConfig, TrainingConfig
from cxr_jax.devices import replicate
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.forward import compile_on_images, logits_of
from cxr_jax.models.kernels.native.building import kernel_instructions
from cxr_jax.models.kernels.native.costs import native_costs
from cxr_jax.training.feed import HostFeed
from cxr_jax.training.network import Network, build_network
from cxr_jax.training.plan import Plan, plan_run
from cxr_jax.training.run import compile_train_step
from cxr_jax.training.state import new_state
from cxr_jax.training.step import moment_of

OPTIMIZER = OptimizerConfig(decayed="all")
"""The studies' SGD with momentum and weight decay; PyTorch decays every parameter."""


def prepare(case: Case) -> Workload:
    """Compiles the step of `case`. Raises UserError for an unknown model or a batch that the devices cannot share."""
    noise = noise_images(DISTINCT_BATCHES * case.batch_size, case.image_size)
    plain = case.implementation == "plain"
    config = _config(case)
    network = build_network(config.model, seed=0, lowering="plain" if plain else "fast")
    plan = plan_run(config, network, noise, noise)
    if plain:
        plan = dataclasses.replace(plan, activations=dataclasses.replace(plan.activations, native_kernels=False))
    began = time.perf_counter()
    if case.work == "train":
        step, program = training_step(plan, network, noise)
    else:
        step, program = _inference(case, plan, network, noise)
    facts = {
        "platform": plan.devices[0].platform,
        "device": plan.devices[0].device_kind,
        "devices": len(plan.devices),
        "native_kernels": plan.activations.native_kernels,
        "instructions": kernel_instructions() if plan.activations.native_kernels else "",
        "products": jax.config.jax_default_matmul_precision or "default",
        "versions": {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "flax": flax.__version__},
        "compile_seconds": time.perf_counter() - began,
        **_costs(program, len(plan.devices)),
    }
    return Workload(step, facts, lambda: _device_peak_bytes(plan.devices[0]))


def _config(case: Case) -> Config:
    return Config(
        data=DataConfig(image_size=case.image_size),
        model=ModelConfig(name=case.model),
        optimizer=OPTIMIZER,
        training=TrainingConfig(
            batch_size=case.batch_size,
            evaluation_batch_size=case.batch_size,
            precision="bf16" if case.precision == "bfloat16" else "float32",
        ),
        parallel=ParallelConfig(backend=case.backend, devices=case.devices),
    )


def training_step(plan: Plan, network: Network, noise: ImageSet) -> tuple[Callable[[], None], Compiled]:
    """Returns a function that takes a training step of a plan with one phase, and its program.

    The next batch is put on the devices while a step runs, as in training.
    """
    (phase,) = plan.phases
    state = new_state(network.params, network.batch_stats, phase.trainable, phase.optimizer(phase.schedule))
    feed = HostFeed(noise)
    run = compile_train_step(plan, network, phase, state, feed)
    state = replicate(state, plan.devices)
    batches = itertools.cycle([*feed.batches(batch_size=plan.config.training.batch_size, seed=0, epoch=0)])
    placed = run.place(next(batches))
    moment = moment_of(plan.config.training.seed, learning_rate=float(phase.schedule(0)))

    def step() -> None:
        nonlocal state, placed
        state, metrics = run(state, placed, moment)
        placed = run.place(next(batches))
        jax.block_until_ready((state, metrics))

    return step, run.compiled


def _inference(case: Case, plan: Plan, network: Network, noise: ImageSet) -> tuple[Callable[[], None], Compiled]:
    """Returns a function that predicts a batch, and its program."""
    params, batch_stats = replicate((network.params, network.batch_stats), plan.devices)
    run = compile_on_images(
        logits_of,
        network.graphdef,
        params,
        batch_stats,
        mean=network.mean,
        std=network.std,
        image_size=case.image_size,
        batch_size=case.batch_size,
        devices=plan.devices,
        precision=plan.activations.precision,
        native_kernels=plan.activations.native_kernels,
    )
    batches = itertools.cycle(np.split(noise.images, DISTINCT_BATCHES))
    return lambda: jax.block_until_ready(run(params, batch_stats, next(batches))), run.compiled


def _costs(compiled: Compiled, devices: int) -> dict[str, Any]:
    """Returns operations and bytes of the compiled program over all devices, as XLA and `native_costs` count them.

    Beside them the memory that is planned on one device.
    """
    costs, memory = compiled.cost_analysis(), compiled.memory_analysis()
    flops, copied = native_costs(compiled.as_text())
    planned = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return {
        "flops": (costs["flops"] + flops) * devices,
        "bytes_accessed": (costs["bytes accessed"] + copied) * devices,
        "planned_memory_bytes": planned - memory.alias_size_in_bytes,
        "donated_bytes": memory.alias_size_in_bytes,
    }


def _device_peak_bytes(device: jax.Device) -> int | None:
    return (device.memory_stats() or {}).get("peak_bytes_in_use")
