"""Everything that a step changes, as one pytree, and its form in a checkpoint."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cxr_jax.errors import UserError
from cxr_jax.models.state import ArrayDict, differences, pack_network, prefixed, unpack_network, unprefixed


class TrainState(NamedTuple):
    """What a training step takes and returns."""

    params: ArrayDict  # those that the phase trains
    frozen: ArrayDict  # the others; no gradient, no momentum
    batch_stats: ArrayDict
    optimizer_state: optax.OptState
    step: Array  # [] int32, steps since training began
    # moving averages of all parameters and statistics, as `pack_network` names them; empty without averaging
    average: ArrayDict


def dtype_of(state: TrainState) -> jnp.dtype:
    """Returns the dtype of a step's arithmetic: float32, or float64 where rounding must not hide a mistake."""
    return next(iter(state.params.values())).dtype


def all_params(state: TrainState) -> ArrayDict:
    """Returns trained and frozen parameters together."""
    return state.frozen | state.params


def standing_network(state: TrainState) -> tuple[ArrayDict, ArrayDict]:
    """Returns parameters and BatchNorm statistics of the network that a run stands for: the average where there is one.

    It is what is validated, stored to predict with, and trained on by the next phase.
    """
    return unpack_network(state.average) if state.average else (all_params(state), state.batch_stats)


def network_arrays(state: TrainState) -> ArrayDict:
    """Returns the arrays of the network that the run stands for, under `params.` and `batch_stats.`."""
    return state.average or pack_network(all_params(state), state.batch_stats)


def state_arrays(state: TrainState) -> ArrayDict:
    """Returns every array of the state under one flat name, as stored in a checkpoint."""
    trained = prefixed("trained", pack_network(all_params(state), state.batch_stats)) if state.average else {}
    rest = prefixed("optimizer_state", _leaves(state.optimizer_state)) | {"step": state.step}
    return network_arrays(state) | trained | rest


def averaged(average: ArrayDict, params: ArrayDict, batch_stats: ArrayDict, decay: float, step: Array) -> ArrayDict:
    """Returns the exponential moving average after one more step, `step` [] being how many the average has seen before.

    The decay rises to `decay` as (1 + step) / (10 + step), as in TensorFlow's ExponentialMovingAverage. The first steps
    then have little weight in the average. Averaging of iterates was introduced by Polyak and Juditsky (1992).
    """
    now = pack_network(params, batch_stats)
    seen = step.astype(jnp.float32)
    share = 1 - jnp.minimum(jnp.float32(decay), (1 + seen) / (10 + seen))
    return {name: value + share.astype(value.dtype) * (now[name] - value) for name, value in average.items()}


def restore_network(
    arrays: ArrayDict, params: ArrayDict, batch_stats: ArrayDict, where: str
) -> tuple[ArrayDict, ArrayDict]:
    """Returns the parameters and statistics that `arrays` of the checkpoints at `where` hold.

    Raises UserError naming what differs if they are not of a network like `params` and `batch_stats`.
    """
    found = unpack_network(arrays)
    phrases = differences(params, found[0]) + differences(batch_stats, found[1])
    if phrases:
        raise UserError(f"{where} holds another model: {'; '.join(phrases[:5])}; start a new run")
    return found


def restore_state(arrays: ArrayDict, template: TrainState, where: str) -> TrainState:
    """Returns the state that `arrays` of the checkpoint at `where` hold, shaped like `template`.

    Raises UserError naming what differs if they belong to another model or optimizer.
    """
    expected = state_arrays(template)
    phrases = differences(expected, arrays)
    if phrases:
        raise UserError(f"{where} holds another optimizer: {'; '.join(phrases[:5])}; start a new run")
    params, batch_stats = unpack_network(unprefixed("trained", arrays) if template.average else arrays)
    leaves = unprefixed("optimizer_state", arrays)
    structure = jax.tree.structure(template.optimizer_state)
    optimizer_state = jax.tree.unflatten(structure, [leaves[name] for name in _leaves(template.optimizer_state)])
    return TrainState(
        params={name: params[name] for name in template.params},
        frozen={name: params[name] for name in template.frozen},
        batch_stats={name: batch_stats[name] for name in template.batch_stats},
        optimizer_state=optimizer_state,
        step=arrays["step"],
        average={name: arrays[name] for name in template.average},
    )


def new_state(
    params: ArrayDict,
    batch_stats: ArrayDict,
    trainable: Collection[str],
    optimizer: optax.GradientTransformation,
    *,
    step: int = 0,
    averages: bool = False,
) -> TrainState:
    """Returns the state at the beginning of a phase that trains the parameters named in `trainable`.

    Its optimizer has seen nothing yet: all that it remembers is zero. With `averages` the moving average begins as the
    network itself, and shares its arrays: before a step consumes the state, `replicate` gives each its own.
    """
    trained = {name: params[name] for name in trainable}
    return TrainState(
        params=trained,
        frozen={name: value for name, value in params.items() if name not in trained},
        batch_stats=batch_stats,
        # made by numpy: a program that makes it takes a second to compile
        optimizer_state=jax.tree.map(_zeros, jax.eval_shape(optimizer.init, trained)),
        step=jax.device_put(np.int32(step)),
        average=pack_network(params, batch_stats) if averages else {},
    )


def _zeros(shape: jax.ShapeDtypeStruct) -> Array:
    return jax.device_put(np.zeros(shape.shape, shape.dtype))


def _leaves(tree: Any) -> ArrayDict:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
