"""The steps compiled for the devices of all processes: jit over a mesh, or pmap.

Both are compiled ahead of time, so that a step cannot be compiled again unseen: a batch of another shape is an error.
Every function that is returned here has its program, a `jax.stages.Compiled`, as its attribute `compiled`. Of several
processes each calls it with its own share of the rows of a batch; what comes back is of the whole batch, on all of
them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cxr_jax.data.batches import Batch
from cxr_jax.models.state import ArrayDict
from cxr_jax.training.sharding import (
    BATCH_AXIS,
    local_count,
    replicate,
    replicated,
    require_divisible,
    shapes_of,
    sharded,
    share_out,
)
from cxr_jax.training.state import TrainState
from cxr_jax.training.steps import (
    DeviceBatch,
    Precision,
    StepMetrics,
    StepRules,
    classification_step,
    evaluation_step,
    pooling_step,
    train_step,
)

Backend = Literal["jit", "pmap"]

TrainFunction = Callable[[TrainState, Batch, int], tuple[TrainState, StepMetrics]]
EvaluationFunction = Callable[[ArrayDict, ArrayDict, np.ndarray], Array]


def compile_train_step(
    rules: StepRules, state: TrainState, image_size: int, batch_size: int, devices: list[jax.Device], backend: Backend
) -> TrainFunction:
    """The training step for states like `state` and batches [batch_size, image_size, image_size].

    The state that it is given is consumed. Raises UserError if the batch cannot be shared evenly.
    """
    require_divisible("training.batch_size", batch_size, devices, rules.accumulation_steps)
    if backend == "pmap":
        return _pmap_train_step(rules, state, image_size, batch_size, devices)
    step = jax.jit(
        functools.partial(train_step, rules=rules),
        in_shardings=(replicated(devices), sharded(devices), replicated(devices)),
        out_shardings=replicated(devices),
        donate_argnums=0,
    )
    shapes = _batch_shapes(rules, (batch_size,), image_size)
    compiled = step.lower(shapes_of(state), shapes, jax.ShapeDtypeStruct((), jnp.int32)).compile()

    def run(state: TrainState, batch: Batch, epoch: int) -> tuple[TrainState, StepMetrics]:
        return compiled(state, share_out(DeviceBatch(*batch), devices), np.int32(epoch))

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
    each = batch_size // len(devices)

    def stack(batch: Any) -> DeviceBatch:
        """The rows of `batch` [B, ...] on their devices, as [devices, B / devices, ...]."""
        rows = DeviceBatch(*batch)
        if rows.labels.shape[0] != each * local_count(devices):
            raise TypeError(f"a batch of {rows.labels.shape[0]} rows is not one of {each * local_count(devices)}")
        return share_out(jax.tree.map(lambda rows: rows.reshape(-1, each, *rows.shape[1:]), rows), devices)

    # of shapes alone pmap cannot tell that they are to lie on several processes
    shapes = _batch_shapes(rules, (each * local_count(devices),), image_size)
    empty_state, empty_batch = (
        jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), tree) for tree in (shapes_of(state), shapes)
    )
    compiled = step.lower(replicate(empty_state, devices), stack(empty_batch), np.int32(0)).compile()

    def run(state: TrainState, batch: Batch, epoch: int) -> tuple[TrainState, StepMetrics]:
        return compiled(state, stack(batch), np.int32(epoch))

    run.compiled = compiled
    return run


def compile_evaluation_step(
    rules: StepRules,
    params: ArrayDict,
    batch_stats: ArrayDict,
    image_size: int,
    batch_size: int,
    devices: list[jax.Device],
    precision: Precision = "float32",
) -> EvaluationFunction:
    """The evaluation step for batches [batch_size, image_size, image_size] uint8: logits [batch_size, K].

    It has a precision of its own: what a network is judged by is computed in float32 however it was trained. Under
    rules with `feature_channels` it takes pooled features [batch_size, C] instead. Raises UserError if the batch cannot
    be shared evenly.
    """
    if rules.feature_channels:
        step = functools.partial(classification_step, graphdef=rules.graphdef)
    else:
        step = functools.partial(
            evaluation_step, graphdef=rules.graphdef, mean=rules.mean, std=rules.std, precision=precision
        )
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
    everywhere = replicated(devices)
    jitted = jax.jit(step, in_shardings=(everywhere, everywhere, sharded(devices)), out_shardings=everywhere)
    compiled = jitted.lower(shapes_of(params), shapes_of(batch_stats), examples).compile()

    def run(params: ArrayDict, batch_stats: ArrayDict, examples: np.ndarray) -> Array:
        return compiled(params, batch_stats, share_out(examples, devices))

    run.compiled = compiled
    return run


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
