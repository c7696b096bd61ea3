"""The steps compiled for the devices of all processes: jit over a mesh, or pmap.

Both are compiled ahead of time, so that a step cannot be compiled again unseen: a batch of another shape is an error.
What is returned here has its program, a `jax.stages.Compiled`, as its attribute `compiled`. Of several
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
from jax.stages import Compiled

from cxr_jax.data.batches import Batch
from cxr_jax.models.state import ArrayDict
from cxr_jax.training.placement import row_picking_step
from cxr_jax.training.precision import Precision
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
    StepMetrics,
    StepRules,
    classification_step,
    evaluation_step,
    pooling_step,
    train_step,
)

Backend = Literal["jit", "pmap"]

EvaluationFunction = Callable[[ArrayDict, ArrayDict, np.ndarray], Array]


class TrainStep:
    """A compiled training step. A batch is a `Batch`, or its rows [B] where the step picks them from a table."""

    def __init__(self, compiled: Compiled, place: Callable[[Any], Any], table: DeviceBatch | None) -> None:
        self.compiled, self.place = compiled, place
        self.picks_rows = table is not None
        self._data = () if table is None else (table,)

    def take(self, state: TrainState, placed: Any, epoch: int) -> tuple[TrainState, StepMetrics]:
        """One step on a batch that `place` has put on the devices; `state` is consumed. Does not wait for it."""
        return self.compiled(state, placed, np.int32(epoch), *self._data)

    def __call__(self, state: TrainState, batch: Batch | np.ndarray, epoch: int) -> tuple[TrainState, StepMetrics]:
        """One step on a batch of the host."""
        return self.take(state, self.place(batch), epoch)


def compile_train_step(
    rules: StepRules,
    state: TrainState,
    image_size: int,
    batch_size: int,
    devices: list[jax.Device],
    backend: Backend,
    table: DeviceBatch | None = None,
) -> TrainStep:
    """The training step for states like `state` and batches [batch_size, image_size, image_size].

    With `table`, all examples on all devices, a batch is given by the rows [batch_size] that it takes from there. The
    state that the step is given is consumed. Raises UserError if the batch cannot be shared evenly.
    """
    require_divisible("training.batch_size", batch_size, devices, rules.accumulation_steps)
    compile_for = _compile_pmap if backend == "pmap" else _compile_jit
    step = functools.partial(train_step if table is None else row_picking_step, rules=rules)
    if table is None:
        shapes = _batch_shapes(rules, (batch_size,), image_size)
    else:
        shapes = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return TrainStep(*compile_for(step, state, shapes, devices, () if table is None else (table,)), table)


def _compile_jit(
    step: Callable, state: TrainState, batch: Any, devices: list[jax.Device], data: tuple
) -> tuple[Compiled, Callable[[Any], Any]]:
    """`step` for batches of the shapes `batch`, which takes `data` too, and what puts a batch on the devices."""
    everywhere = replicated(devices)
    jitted = jax.jit(
        step,
        in_shardings=(everywhere, sharded(devices), everywhere, *[everywhere for _ in data]),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    epoch = jax.ShapeDtypeStruct((), jnp.int32)
    compiled = jitted.lower(shapes_of(state), batch, epoch, *shapes_of(data)).compile()
    return compiled, lambda batch: share_out(_as_arrays(batch), devices)


def _compile_pmap(
    step: Callable, state: TrainState, batch: Any, devices: list[jax.Device], data: tuple
) -> tuple[Compiled, Callable[[Any], Any]]:
    """As `_compile_jit`."""
    mapped = jax.pmap(
        functools.partial(step, axis_name=BATCH_AXIS),
        axis_name=BATCH_AXIS,
        in_axes=(None, 0, None, *[None for _ in data]),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )
    local = local_count(devices)
    each = jax.tree.leaves(batch)[0].shape[0] // len(devices)

    def stack(rows: np.ndarray) -> np.ndarray:
        """`rows` [B, ...] as [devices, B / devices, ...]."""
        if rows.shape[0] != each * local:
            raise TypeError(f"a batch of {rows.shape[0]} rows is not one of {each * local}")
        return rows.reshape(-1, each, *rows.shape[1:])

    def place(batch: Any) -> Any:
        return share_out(jax.tree.map(stack, _as_arrays(batch)), devices)

    # of shapes alone pmap cannot tell that they are to lie on several processes
    empty_batch = jax.tree.map(lambda shape: np.zeros((each * local, *shape.shape[1:]), shape.dtype), batch)
    empty_state = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes_of(state))
    compiled = mapped.lower(replicate(empty_state, devices), place(empty_batch), np.int32(0), *data).compile()
    return compiled, place


def _as_arrays(batch: Batch | DeviceBatch | np.ndarray) -> DeviceBatch | np.ndarray:
    """A batch of the host as the step takes it."""
    return batch if isinstance(batch, np.ndarray) else DeviceBatch(*batch)


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
            evaluation_step,
            graphdef=rules.graphdef,
            mean=rules.mean,
            std=rules.std,
            precision=precision,
            native_kernels=rules.native_kernels,
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
