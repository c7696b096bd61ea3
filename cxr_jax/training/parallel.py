"""The steps compiled for a set of devices: jit over a mesh, or pmap.

Both are compiled ahead of time, so that a step cannot be compiled again unseen: a batch of another shape is an error.
Every function that is returned here has its program, a `jax.stages.Compiled`, as its attribute `compiled`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from cxr_jax.data.batches import Batch
from cxr_jax.errors import UserError
from cxr_jax.models.state import ArrayDict
from cxr_jax.training.state import TrainState
from cxr_jax.training.steps import (
    DeviceBatch,
    StepMetrics,
    StepRules,
    classification_step,
    evaluation_step,
    pooling_step,
    train_step,
)

Backend = Literal["jit", "pmap"]
BATCH_AXIS = "batch"

TrainFunction = Callable[[TrainState, Batch, int], tuple[TrainState, StepMetrics]]
EvaluationFunction = Callable[[ArrayDict, ArrayDict, np.ndarray], Array]


def choose_devices(count: int) -> list[jax.Device]:
    """The first `count` devices, or all for 0. Raises UserError if there are fewer."""
    devices = jax.devices()
    if count > len(devices):
        raise UserError(
            f"parallel.devices is {count}, but there {'is' if len(devices) == 1 else 'are'} only {len(devices)} "
            f"({devices[0].platform}); ask for at most {len(devices)}"
        )
    return devices[: count or len(devices)]


def require_divisible(name: str, batch_size: int, devices: list[jax.Device]) -> None:
    """Raise UserError unless a batch of `batch_size` can be shared out evenly."""
    if batch_size % len(devices):
        nearest = max(len(devices), batch_size // len(devices) * len(devices))
        raise UserError(
            f"{name} is {batch_size}, which cannot be shared evenly among {len(devices)} devices; take {nearest}, or "
            "set parallel.devices"
        )


def replicate(state: TrainState, devices: list[jax.Device]) -> TrainState:
    """`state` with a copy of its own on every device: a step may then consume it."""
    sharding = NamedSharding(_mesh(devices), PartitionSpec())
    # device_put may alias its argument, and an aliased buffer cannot be donated
    return jax.device_put(jax.tree.map(jnp.copy, state), sharding)


def compile_train_step(
    rules: StepRules, state: TrainState, image_size: int, batch_size: int, devices: list[jax.Device], backend: Backend
) -> TrainFunction:
    """The training step for states like `state` and batches [batch_size, image_size, image_size].

    The state that it is given is consumed. Raises UserError if the batch cannot be shared evenly.
    """
    require_divisible("training.batch_size", batch_size, devices)
    if backend == "pmap":
        return _pmap_train_step(rules, state, image_size, batch_size, devices)
    mesh = _mesh(devices)
    replicated, sharded = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    step = jax.jit(
        functools.partial(train_step, rules=rules),
        in_shardings=(replicated, sharded, replicated),
        out_shardings=replicated,
        donate_argnums=0,
    )
    compiled = step.lower(_shapes(state), _batch_shapes(rules, (batch_size,), image_size), _EPOCH).compile()

    def run(state: TrainState, batch: Batch, epoch: int) -> tuple[TrainState, StepMetrics]:
        return compiled(state, jax.device_put(DeviceBatch(*batch), sharded), np.int32(epoch))

    run.compiled = compiled
    return run


def _pmap_train_step(
    rules: StepRules, state: TrainState, image_size: int, batch_size: int, devices: list[jax.Device]
) -> TrainFunction:
    step = jax.pmap(
        functools.partial(train_step, rules=rules, axis_name=BATCH_AXIS),
        axis_name=BATCH_AXIS,
        in_axes=(None, 0, None),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )
    shape = (len(devices), batch_size // len(devices))
    compiled = step.lower(_shapes(state), _batch_shapes(rules, shape, image_size), _EPOCH).compile()

    def run(state: TrainState, batch: Batch, epoch: int) -> tuple[TrainState, StepMetrics]:
        stacked = DeviceBatch(*(value.reshape(*shape, *value.shape[1:]) for value in batch))
        return compiled(state, stacked, np.int32(epoch))

    run.compiled = compiled
    return run


def compile_evaluation_step(
    rules: StepRules,
    params: ArrayDict,
    batch_stats: ArrayDict,
    image_size: int,
    batch_size: int,
    devices: list[jax.Device],
) -> EvaluationFunction:
    """The evaluation step for batches [batch_size, image_size, image_size] uint8: logits [batch_size, K].

    Under rules with `feature_channels` it takes pooled features [batch_size, C] instead. Raises UserError if the batch
    cannot be shared evenly.
    """
    if rules.feature_channels:
        step = functools.partial(classification_step, graphdef=rules.graphdef)
    else:
        step = functools.partial(evaluation_step, graphdef=rules.graphdef, mean=rules.mean, std=rules.std)
    examples = _batch_shapes(rules, (batch_size,), image_size).images
    return _compile_inference(step, params, batch_stats, examples, devices)


def compile_pooling_step(
    rules: StepRules,
    params: ArrayDict,
    batch_stats: ArrayDict,
    image_size: int,
    batch_size: int,
    devices: list[jax.Device],
) -> EvaluationFunction:
    """The step that gives pooled features [batch_size, C] of batches [batch_size, image_size, image_size] uint8.

    Raises UserError if the batch cannot be shared evenly.
    """
    step = functools.partial(pooling_step, graphdef=rules.graphdef, mean=rules.mean, std=rules.std)
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size), jnp.uint8)
    return _compile_inference(step, params, batch_stats, images, devices)


def _compile_inference(
    step: Callable[..., Array],
    params: ArrayDict,
    batch_stats: ArrayDict,
    examples: jax.ShapeDtypeStruct,
    devices: list[jax.Device],
) -> EvaluationFunction:
    require_divisible("training.evaluation_batch_size", examples.shape[0], devices)
    mesh = _mesh(devices)
    replicated, sharded = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    jitted = jax.jit(step, in_shardings=(replicated, replicated, sharded), out_shardings=replicated)
    compiled = jitted.lower(_shapes(params), _shapes(batch_stats), examples).compile()

    def run(params: ArrayDict, batch_stats: ArrayDict, examples: np.ndarray) -> Array:
        return compiled(params, batch_stats, jax.device_put(examples, sharded))

    run.compiled = compiled
    return run


_EPOCH = jax.ShapeDtypeStruct((), jnp.int32)


def _mesh(devices: list[jax.Device]) -> jax.sharding.Mesh:
    return jax.make_mesh((len(devices),), (BATCH_AXIS,), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _batch_shapes(rules: StepRules, leading: tuple[int, ...], image_size: int) -> DeviceBatch:
    """Shapes of a batch of images or, where the rules say so, of pooled features."""
    if rules.feature_channels:
        images = jax.ShapeDtypeStruct((*leading, rules.feature_channels), jnp.float32)
    else:
        images = jax.ShapeDtypeStruct((*leading, image_size, image_size), jnp.uint8)
    return DeviceBatch(
        images=images,
        labels=jax.ShapeDtypeStruct(leading, jnp.int32),
        ids=jax.ShapeDtypeStruct(leading, jnp.int32),
    )
