"""A training step compiled for the devices of all processes: jit over a mesh, or pmap.

Both are compiled ahead of time, so that a step cannot be compiled again unseen: a batch of another shape is an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.stages import Compiled

from cxr_jax.devices import BATCH_AXIS, local_count, replicate, replicated, shapes_of, sharded, share_out
from cxr_jax.process import release_freed_memory

Backend = Literal["jit", "pmap"]

Step = Callable[..., tuple[Any, Any]]
"""Takes state, batch, moment, what is resident, and by name `axis_name`; returns state and metrics."""


class CompiledStep:
    """A step as a program, with what puts its batches on the devices."""

    def __init__(self, compiled: Compiled, place: Callable[[Any], Any], resident: tuple[Any, ...]) -> None:
        self.compiled, self._place, self._resident = compiled, place, resident

    def place(self, batch: Any) -> Any:
        """Returns a batch of the host, this process's share of its rows, on the devices."""
        return self._place(batch)

    def __call__(self, state: Any, placed: Any, moment: Any) -> tuple[Any, Any]:
        """Returns state and metrics after a step on a batch that `place` has put on the devices, without waiting for
        them.

        `state` is consumed. `moment` is what the program was compiled for, on the host.
        """
        return self.compiled(state, placed, moment, *self._resident)


def compile_step(
    step: Step,
    state: Any,
    batch: Any,
    moment: Any,
    devices: Sequence[jax.Device],
    backend: Backend = "jit",
    resident: tuple[Any, ...] = (),
) -> CompiledStep:
    """Returns `step` compiled for states like `state` and batches of the shapes `batch`.

    `moment` is like the numbers on the host that change from step to step, such as the epoch. `resident` lies on all
    devices already and is given to every step. If there are several processes, each places its own share of the rows of
    a batch. The returned state is on all of them.
    """
    compiled = (_compile_pmap if backend == "pmap" else _compile_jit)(step, state, batch, moment, devices, resident)
    release_freed_memory()
    return compiled


def _compile_jit(
    step: Step, state: Any, batch: Any, moment: Any, devices: Sequence[jax.Device], resident: tuple[Any, ...]
) -> CompiledStep:
    everywhere = replicated(devices)
    jitted = jax.jit(
        step,
        in_shardings=(everywhere, sharded(devices), everywhere, *[everywhere for _ in resident]),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    compiled = jitted.lower(shapes_of(state), batch, shapes_of(moment), *shapes_of(resident)).compile()
    return CompiledStep(compiled, lambda batch: share_out(batch, devices), resident)


def _compile_pmap(
    step: Step, state: Any, batch: Any, moment: Any, devices: Sequence[jax.Device], resident: tuple[Any, ...]
) -> CompiledStep:
    mapped = jax.pmap(
        functools.partial(step, axis_name=BATCH_AXIS),
        axis_name=BATCH_AXIS,
        in_axes=(None, 0, None, *[None for _ in resident]),
        out_axes=None,
        devices=list(devices),
        donate_argnums=0,
    )
    local = local_count(devices)
    each = jax.tree.leaves(batch)[0].shape[0] // len(devices)

    def stack(rows: np.ndarray) -> np.ndarray:
        """Returns `rows` [B, ...] as [devices, B / devices, ...]."""
        if rows.shape[0] != each * local:
            raise TypeError(f"a batch of {rows.shape[0]} rows is not one of {each * local}")
        return rows.reshape(-1, each, *rows.shape[1:])

    def place(batch: Any) -> Any:
        return share_out(jax.tree.map(stack, batch), devices)

    # of shapes alone pmap cannot tell that they are to lie on several processes
    empty_batch = jax.tree.map(lambda shape: np.zeros((each * local, *shape.shape[1:]), shape.dtype), batch)
    empty_state = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes_of(state))
    compiled = mapped.lower(replicate(empty_state, devices), place(empty_batch), moment, *resident).compile()
    return CompiledStep(compiled, place, resident)
