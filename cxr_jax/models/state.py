"""A model taken apart into flat dictionaries of arrays under dotted names, and put together again."""

from __future__ import annotations

from typing import Any

from flax import nnx
from jax import Array

ArrayDict = dict[str, Array]
"""Arrays under dotted names such as `blocks.1.0.conv_pw.kernel`."""


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, ArrayDict, ArrayDict]:
    """Returns the model's structure, its parameters and its BatchNorm statistics, both under dotted names."""
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, _flatten(nnx.to_pure_dict(params)), _flatten(nnx.to_pure_dict(batch_stats))


def merge_model(graphdef: nnx.GraphDef, params: ArrayDict, batch_stats: ArrayDict) -> Any:
    """Returns the model that `split_model` took apart, with these arrays.

    The names must be those of `split_model`: `nnx.merge` assigns by order and would accept others in silence, so
    whoever takes arrays from outside compares them by `differences` first.
    """
    return nnx.merge(graphdef, nnx.State(_unflatten(params)), nnx.State(_unflatten(batch_stats)))


def batch_stats_of(model: nnx.Module) -> ArrayDict:
    """Returns the model's BatchNorm statistics under dotted names, after a run in training mode."""
    return _flatten(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))


def pack_network(params: ArrayDict, batch_stats: ArrayDict) -> ArrayDict:
    """Returns parameters and statistics in one dictionary, under `params.` and `batch_stats.`: as a checkpoint
    stores them.
    """
    return prefixed("params", params) | prefixed("batch_stats", batch_stats)


def unpack_network(arrays: ArrayDict) -> tuple[ArrayDict, ArrayDict]:
    """Returns the parameters and BatchNorm statistics in the arrays of a checkpoint; what else it holds is left out."""
    return unprefixed("params", arrays), unprefixed("batch_stats", arrays)


def prefixed(prefix: str, arrays: ArrayDict) -> ArrayDict:
    """Returns `arrays` with `prefix` and a dot before every name."""
    return {f"{prefix}.{name}": value for name, value in arrays.items()}


def unprefixed(prefix: str, arrays: ArrayDict) -> ArrayDict:
    """Returns those of `arrays` whose name begins with `prefix` and a dot, under the rest of it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in arrays.items() if name.startswith(f"{prefix}.")}


def differences(expected: ArrayDict, found: ArrayDict) -> list[str]:
    """Returns one phrase for every name that is missing or unknown and every shape or dtype that differs."""
    phrases = [f"{name} is missing" for name in expected if name not in found]
    phrases += [f"{name} is unknown" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        wanted, given = expected[name], found[name]
        if wanted.shape != given.shape:
            phrases.append(f"{name} has shape {tuple(given.shape)} instead of {tuple(wanted.shape)}")
        elif wanted.dtype != given.dtype:
            phrases.append(f"{name} has dtype {given.dtype} instead of {wanted.dtype}")
    return sorted(phrases)


def _flatten(tree: dict, prefix: str = "") -> ArrayDict:
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _unflatten(flat: ArrayDict) -> dict:
    # list positions must be ints: as strings '10' would sort before '2' and permute the weights in silence
    tree: dict = {}
    for name, value in flat.items():
        *path, leaf = (int(part) if part.isdigit() else part for part in name.split("."))
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree
