"""Weights from a safetensors file under timm's names, loaded strictly in both directions."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from cxr_jax.errors import UserError
from cxr_jax.models.state import ArrayDict

TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
"""What timm calls the leaf that we call by the key."""

CLASSIFIER = "classifier."
MAXIMUM_LISTED = 20


@dataclass(frozen=True)
class LoadedWeights:
    """Arrays read from a file, which of them stayed as initialised, and what the file says of itself."""

    params: ArrayDict
    batch_stats: ArrayDict
    fresh: tuple[str, ...]  # parameters that the file does not give: none, or those of the classifier
    metadata: dict[str, str]

    def image_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and std (three channels in [0, 1]) that the weights expect, if the file names them."""
        try:
            mean, std = (tuple(map(float, json.loads(self.metadata[key]))) for key in ("mean", "std"))
        except (KeyError, ValueError, TypeError):
            return None
        return (mean, std) if len(mean) == len(std) == 3 else None


def find_weights(name: str) -> Path:
    """The file called `name`: a path, or a file in the folder CXR_WEIGHTS_DIR. Raises UserError if there is none."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folder = os.environ.get("CXR_WEIGHTS_DIR")
    if folder and (Path(folder) / name).is_file():
        return Path(folder) / name
    where = f"{path} nor in CXR_WEIGHTS_DIR ({folder})" if folder else f"{path}, and CXR_WEIGHTS_DIR is not set"
    raise UserError(f"The weights file is neither at {where}; give its path as model.weights.")


def load_weights(path: Path, architecture: str, params: ArrayDict, batch_stats: ArrayDict) -> LoadedWeights:
    """The arrays of `params` and `batch_stats` replaced by those of the file.

    Every array must be found under timm's name with the right shape, and every array of the file used. Only the
    classifier may be missing or of another shape: then it stays as it is and is named in `fresh`. Raises UserError
    listing every offender, or for a file that is no safetensors file or belongs to another architecture.
    """
    tensors, metadata = _read(path)
    stored = metadata.get("architecture")
    if stored is not None and stored != architecture:
        raise UserError(f"{path} holds weights of {stored}, but the model is {architecture}; choose one or the other.")
    targets = {timm_name(name): name for name in params | batch_stats}
    offenders, fresh, loaded = [], [], {}
    for source, name in targets.items():
        target = (params | batch_stats)[name]
        value = as_ours(source, tensors.pop(source), target.ndim) if source in tensors else None
        if value is not None and value.shape == target.shape:
            loaded[name] = jnp.asarray(value, target.dtype)
        elif name.startswith(CLASSIFIER):
            fresh.append(name)
        elif value is None:
            offenders.append(f"{source} is missing")
        else:
            offenders.append(f"{source} has shape {value.shape} instead of {target.shape}")
    offenders += [f"{name} is unknown" for name in tensors if not name.endswith("num_batches_tracked")]
    if offenders:
        listed = "; ".join(sorted(offenders)[:MAXIMUM_LISTED])
        more = f"; and {len(offenders) - MAXIMUM_LISTED} more" if len(offenders) > MAXIMUM_LISTED else ""
        raise UserError(f"{path} does not fit {architecture}: {listed}{more}.")
    if fresh:
        # a classifier is kept or replaced whole
        fresh = [name for name in params if name.startswith(CLASSIFIER)]
    keep = {name: loaded[name] for name in loaded if name not in fresh}
    return LoadedWeights(params | _only(keep, params), batch_stats | _only(keep, batch_stats), tuple(fresh), metadata)


def timm_name(name: str) -> str:
    """timm's name of the array that we call `name`."""
    module, leaf = name.rsplit(".", 1)
    return f"{module}.{TORCH_LEAVES[leaf]}"


def as_ours(name: str, value: np.ndarray, ndim: int) -> np.ndarray:
    """A torch array in our layout: kernels OIHW become HWIO, linear weights (out, in) become (in, out)."""
    if name.endswith(".weight") and value.ndim == ndim and ndim in (2, 4):
        return value.transpose((2, 3, 1, 0) if ndim == 4 else (1, 0))
    return value


def _only(arrays: ArrayDict, names: ArrayDict) -> ArrayDict:
    return {name: value for name, value in arrays.items() if name in names}


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a safetensors file ({error}); fetch or port it again.") from error
