"""Weights from a safetensors file under the names of timm or torchvision, loaded strictly in both directions."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from cxr_jax.errors import UserError
from cxr_jax.models.network import CLASSIFIER, TRANSITION, has_prefix
from cxr_jax.models.original_names import as_ours, expected_tensors, original_name, torch_shape
from cxr_jax.models.registry import ARCHITECTURES, AS_IN_TENSORFLOW, Architecture, find_architecture
from cxr_jax.models.state import ArrayDict
from cxr_jax.runs.files import at_home

BEHIND = (CLASSIFIER, TRANSITION)
"""Layers that published weights may lack: they answer about other classes, or were put there by a config."""

IGNORED = ".num_batches_tracked"
"""Ends the names of torch's counters, which nothing here needs."""

CHECKSUM = "sha256"
"""Key of the metadata under which a file keeps the `checksum` of its tensors."""

MAXIMUM_LISTED = 20


@dataclass(frozen=True)
class LoadedWeights:
    """Arrays read from a file, which of them stayed as initialised, and what the file says of itself."""

    params: ArrayDict
    batch_stats: ArrayDict
    fresh: tuple[str, ...]  # parameters that the file does not give: none, or those of the classifier and before it
    metadata: dict[str, str]

    def image_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Returns the mean and std (three channels in [0, 1]) that the weights expect, if the file names them."""
        try:
            mean, std = (numbers_of(self.metadata[key]) for key in ("mean", "std"))
        except (KeyError, ValueError, TypeError):
            return None
        return (mean, std) if len(mean) == len(std) == 3 else None


def numbers_of(text: str) -> tuple[float, ...]:
    """Returns the numbers in `text`, a JSON list or divided by spaces; raises ValueError or TypeError for others."""
    return tuple(map(float, json.loads(text) if text.startswith("[") else text.split()))


def find_weights(name: str, architecture: str) -> Path:
    """Returns the file called `name`: a path, or a file in the folder CXR_WEIGHTS_DIR.

    Raises UserError if there is none, with the command that makes one for `architecture`.
    """
    path = at_home(name)
    if path.is_file():
        return path
    folder = os.environ.get("CXR_WEIGHTS_DIR")
    if folder and (Path(folder) / name).is_file():
        return Path(folder) / name
    elsewhere = f"and none in CXR_WEIGHTS_DIR ({folder})" if folder else "and CXR_WEIGHTS_DIR is not set"
    raise UserError(
        f"there is no weights file {path}, {elsewhere}; make it with cxr-jax port {architecture} {path}, or give its "
        "path as model.weights"
    )


def load_weights(path: Path, architecture: str, params: ArrayDict, batch_stats: ArrayDict) -> LoadedWeights:
    """Returns the arrays of `params` and `batch_stats` replaced by those of the file at `path`, as `fit_weights` does.

    Raises UserError listing every offender, or for a file that is no safetensors file or belongs to another
    architecture.
    """
    tensors, metadata = read_weights(path)
    stored = stated_architecture(metadata)
    if stored is not None and stored != architecture:
        padding = ", with TensorFlow's padding" if stored == AS_IN_TENSORFLOW + architecture else ""
        raise UserError(
            f"{path} holds weights of {stored}{padding}, but the model is {architecture}; choose one or the other"
        )
    return fit_weights(tensors, metadata, str(path), architecture, params, batch_stats)


def stated_architecture(metadata: Mapping[str, str]) -> str | None:
    """Returns the architecture that a file names; None if it names none.

    It is the one with TensorFlow's padding where the file speaks of that, and there are two of the name.
    """
    name = metadata.get("architecture")
    by_tensorflow = metadata.get("pad_type") == "same" or "SAME" in metadata.get("padding", "")
    return AS_IN_TENSORFLOW + name if name and by_tensorflow and AS_IN_TENSORFLOW + name in ARCHITECTURES else name


def is_passed_over(tensor: str, architecture: Architecture) -> bool:
    """Returns whether the original's `tensor` is one that we have no use for."""
    return tensor.endswith(IGNORED) or has_prefix(tensor, architecture.passed_over)


def fit_weights(
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    where: str,
    architecture: str,
    params: ArrayDict,
    batch_stats: ArrayDict,
) -> LoadedWeights:
    """Returns the arrays of `params` and `batch_stats` replaced by `tensors`, under the original's names and in
    torch's layout.

    Every array must be found with the right shape and finite values, and every tensor used. Only the classifier and a
    transition layer may be missing or of another shape: then they stay as they are and are named in `fresh`. `where`
    and `architecture` are for the message. Raises UserError listing every offender.
    """
    expected, known = params | batch_stats, find_architecture(architecture)
    loaded, fresh, offenders = {}, [], []
    for name, target in expected.items():
        source = original_name(name, known.original_names)
        value = as_ours(source, tensors[source], target.ndim) if source in tensors else None
        if value is None or value.shape != target.shape:
            if has_prefix(name, BEHIND):
                fresh.append(name)
            elif value is None:
                offenders.append(f"{source} is missing")
            else:
                offenders.append(f"{source} has shape {tensors[source].shape} instead of {torch_shape(name, target)}")
        elif not np.isfinite(value).all():
            offenders.append(f"{source} is not finite")
        else:
            loaded[name] = jnp.asarray(value, target.dtype)
    wanted = expected_tensors(expected, known.original_names)
    offenders += [f"{name} is unknown" for name in tensors if name not in wanted and not is_passed_over(name, known)]
    if offenders:
        listed = "; ".join(sorted(offenders)[:MAXIMUM_LISTED])
        more = f"; and {len(offenders) - MAXIMUM_LISTED} more" if len(offenders) > MAXIMUM_LISTED else ""
        another = "" if 2 * len(loaded) > len(expected) else ", and seems to hold another network"
        raise UserError(f"{where} does not fit {architecture}{another}: {listed}{more}")
    if fresh:
        # each is kept or replaced whole, and no classifier is kept that answered about other maps
        layers = BEHIND if any(has_prefix(name, (TRANSITION,)) for name in fresh) else (CLASSIFIER,)
        fresh = [name for name in expected if has_prefix(name, layers)]
    kept = {name: value for name, value in loaded.items() if name not in fresh}
    return LoadedWeights(
        params={name: kept.get(name, value) for name, value in params.items()},
        batch_stats={name: kept.get(name, value) for name, value in batch_stats.items()},
        fresh=tuple(name for name in fresh if name in params),
        metadata=dict(metadata),
    )


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays and the metadata of a safetensors file.

    The format itself notices missing bytes and no changed ones; files that state a checksum are held to it. Raises
    UserError if it is no such file or was changed.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as a safetensors file ({error}); fetch or port it again") from error
    if CHECKSUM in metadata and metadata[CHECKSUM] != checksum(tensors):
        raise UserError(f"{path} is damaged: its tensors are not those of the sha256 in it; fetch or port it again")
    return tensors, metadata


def checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 of names, types, shapes and values, hexadecimal; the order does not enter."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode("utf-8", "surrogatepass"))
        digest.update(value.reshape(-1).view(np.uint8))
    return digest.hexdigest()
