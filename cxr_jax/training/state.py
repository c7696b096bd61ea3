"""Everything that a step changes, as one pytree, and its form in a checkpoint."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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


def all_params(state: TrainState) -> ArrayDict:
    """Trained and frozen parameters together."""
    return state.frozen | state.params


def network_arrays(state: TrainState) -> ArrayDict:
    """The arrays that the network alone needs, under `params.` and `batch_stats.`."""
    return pack_network(all_params(state), state.batch_stats)


def state_arrays(state: TrainState) -> ArrayDict:
    """Every array of the state under one flat name, as stored in a checkpoint."""
    return network_arrays(state) | prefixed("optimizer_state", _leaves(state.optimizer_state)) | {"step": state.step}


def restore_network(
    arrays: ArrayDict, params: ArrayDict, batch_stats: ArrayDict, where: str
) -> tuple[ArrayDict, ArrayDict]:
    """The parameters and statistics that `arrays` of the checkpoints at `where` hold.

    Raises UserError naming what differs if they are not of a network like `params` and `batch_stats`.
    """
    found = unpack_network(arrays)
    phrases = differences(params, found[0]) + differences(batch_stats, found[1])
    if phrases:
        raise UserError(f"{where} holds another model: {'; '.join(phrases[:5])}; start a new run")
    return found


def restore_state(arrays: ArrayDict, template: TrainState, where: str) -> TrainState:
    """The state that `arrays` of the checkpoint at `where` hold, shaped like `template`.

    Raises UserError naming what differs if they belong to another model or optimizer.
    """
    expected = state_arrays(template)
    phrases = differences(expected, arrays)
    if phrases:
        raise UserError(f"{where} holds another optimizer: {'; '.join(phrases[:5])}; start a new run")
    params, batch_stats = unpack_network(arrays)
    leaves = unprefixed("optimizer_state", arrays)
    structure = jax.tree.structure(template.optimizer_state)
    optimizer_state = jax.tree.unflatten(structure, [leaves[name] for name in _leaves(template.optimizer_state)])
    return TrainState(
        params={name: params[name] for name in template.params},
        frozen={name: params[name] for name in template.frozen},
        batch_stats={name: batch_stats[name] for name in template.batch_stats},
        optimizer_state=optimizer_state,
        step=arrays["step"],
    )


def new_state(
    params: ArrayDict, frozen: ArrayDict, batch_stats: ArrayDict, optimizer: optax.GradientTransformation, step: int
) -> TrainState:
    """A state at the beginning of a phase, with an optimizer that has seen nothing yet."""
    return TrainState(params, frozen, batch_stats, optimizer.init(params), jnp.asarray(step, jnp.int32))


def _leaves(tree: Any) -> ArrayDict:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
