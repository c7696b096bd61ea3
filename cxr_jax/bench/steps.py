"""Our own steps as workloads: the very functions that training and evaluation compile."""

from __future__ import annotations

import time
from typing import Any

import flax
import jax
import jaxlib
import optax
from jax.stages import Compiled

from cxr_jax.bench.cases import Case
from cxr_jax.bench.native_costs import native_costs
from cxr_jax.bench.workload import Workload, cycling_batches
from cxr_jax.config.schema import AugmentationConfig, OptimizerConfig
from cxr_jax.models.registry import build_model, find_architecture
from cxr_jax.models.state import split_model
from cxr_jax.training.optimizer import make_optimizer
from cxr_jax.training.parallel import compile_evaluation_step, compile_train_step
from cxr_jax.training.precision import Precision, takes_native_kernels
from cxr_jax.training.sharding import choose_devices, replicate
from cxr_jax.training.state import TrainState, all_params, new_state
from cxr_jax.training.steps import StepRules
from cxr_jax.vocabulary import CLASS_NAMES

OPTIMIZER = OptimizerConfig(decayed="all")
"""The studies' SGD with momentum and weight decay; PyTorch decays every parameter."""


def prepare(case: Case) -> Workload:
    """Compile the step of `case`. Raises UserError for an unknown model or a batch that the devices cannot share."""
    devices = choose_devices(case.devices)
    rules, state = _begin(case, devices)
    began = time.perf_counter()
    if case.work == "train":
        run = compile_train_step(rules, state, case.image_size, case.batch_size, devices, case.backend)
    else:
        params = all_params(state)
        run = compile_evaluation_step(
            rules, params, state.batch_stats, case.image_size, case.batch_size, devices, rules.precision
        )
    compile_seconds = time.perf_counter() - began
    state = replicate(state, devices)
    batches = cycling_batches(case.batch_size, case.image_size)

    def train() -> None:
        nonlocal state
        state, metrics = run(state, next(batches), 0)
        jax.block_until_ready((state, metrics))

    def infer() -> None:
        jax.block_until_ready(run(all_params(state), state.batch_stats, next(batches).images))

    facts = {
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "native_kernels": rules.native_kernels,
        "products": jax.config.jax_default_matmul_precision or "default",
        "versions": {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "flax": flax.__version__},
        "compile_seconds": compile_seconds,
        **_costs(run.compiled, len(devices)),
    }
    return Workload(train if case.work == "train" else infer, facts, lambda: _device_peak_bytes(devices[0]))


def _begin(case: Case, devices: list[jax.Device]) -> tuple[StepRules, TrainState]:
    architecture = find_architecture(case.model)
    precision: Precision = "bf16" if case.precision == "bfloat16" else "float32"
    plain = case.implementation == "plain"
    lowering = "plain" if plain else "fast"
    graphdef, params, batch_stats = split_model(build_model(case.model, classes=len(CLASS_NAMES), lowering=lowering))
    optimizer = make_optimizer(OPTIMIZER, optax.constant_schedule(OPTIMIZER.learning_rate), params)
    rules = StepRules(
        graphdef=graphdef,
        optimizer=optimizer,
        mean=architecture.mean,
        std=architecture.std,
        augmentation=AugmentationConfig(),
        class_weights=(1.0,) * len(CLASS_NAMES),
        label_smoothing=0.0,
        batch_statistics=True,
        seed=0,
        precision=precision,
        native_kernels=not plain and takes_native_kernels(precision, devices, case.backend),
    )
    return rules, new_state(params, {}, batch_stats, optimizer, step=0)


def _costs(compiled: Compiled, devices: int) -> dict[str, Any]:
    """Operations and bytes of the compiled program over all devices, as XLA and `native_costs` count them.

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
