"""The state of a generator's training in a checkpoint."""

from __future__ import annotations

import jax

from cxr_jax.errors import UserError
from cxr_jax.models.state import ArrayDict, differences
from cxr_jax.synthesis.step import SynthesisState


def state_arrays(state: SynthesisState) -> ArrayDict:
    """Returns every array of the state under one flat name, as stored in a checkpoint."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def restore_state(arrays: ArrayDict, template: SynthesisState, where: str) -> SynthesisState:
    """Returns the state that `arrays` of the checkpoints at `where` hold, shaped like `template`.

    Raises UserError naming what differs if they are of other networks.
    """
    expected = state_arrays(template)
    phrases = differences(expected, arrays)
    if phrases:
        raise UserError(f"{where} holds other networks: {'; '.join(phrases[:5])}; synthesize anew")
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in expected])
