"""Weights under timm's names, read from a file."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.models.network import CLASSIFIER, has_prefix
from cxr_jax.models.original_names import expected_tensors, original_name
from cxr_jax.models.pretrained import is_passed_over, numbers_of, read_weights, stated_architecture
from cxr_jax.models.registry import ARCHITECTURES, find_architecture, model_shapes
from cxr_jax.models.size import measured_sizes
from cxr_jax.porting.hub import PUBLISHED_LICENSE
from cxr_jax.porting.requirements import import_torch

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
"""What files of weights end in; all but the first are read by torch."""

NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training scripts store the weights, those that are evaluated first."""

STATISTICS = (".running_mean", ".running_var")
"""What the names of BatchNorm's statistics end in."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class SourceWeights:
    """Tensors under timm's names in torch's layout, with what is known of them."""

    tensors: dict[str, np.ndarray]
    architecture: str
    image_size: int  # side in pixels of the images that they were trained on
    mean: tuple[float, ...]  # of the channels in [0, 1]
    std: tuple[float, ...]
    interpolation: str
    source: str
    license: str

    @property
    def classes(self) -> int | None:
        """Classes of the classifier; None without one."""
        kernel = self.tensors.get(f"{self._classifier}.weight")
        return None if kernel is None else kernel.shape[0]

    @property
    def _classifier(self) -> str:
        return classifier_name(self.architecture)

    def metadata(self) -> dict[str, str]:
        """Returns what stands beside the tensors in the file, as strings; lists as JSON."""
        return {
            "architecture": self.architecture,
            "image_size": str(self.image_size),
            "mean": json.dumps(list(self.mean)),
            "std": json.dumps(list(self.std)),
            "interpolation": self.interpolation,
            "source": self.source,
            "license": self.license,
            "naming": "timm",
        }

    def without_classifier(self) -> SourceWeights:
        """Returns these weights less the last layer."""
        kept = {name: value for name, value in self.tensors.items() if not has_prefix(name, (self._classifier,))}
        return replace(self, tensors=kept)


def read_published(path: Path, full_name: str, origin: str) -> SourceWeights:
    """Returns the weights in a file that timm published as `full_name`; `origin` says where it came from.

    Raises UserError as `read_from_file`.
    """
    weights = read_from_file(path, full_name.partition(".")[0], PUBLISHED_LICENSE)
    return replace(weights, source=f"timm's {full_name}, {origin}")


def read_from_file(path: Path, architecture: str = "", license: str = "") -> SourceWeights:
    """Returns the weights in the file at `path`, a safetensors file or one written by torch.

    `architecture` gives what the file does not say. If neither the file nor the caller names it, it is found by the
    names and shapes of the tensors. Raises UserError if the file cannot be read, holds more than arrays, or fits no
    network.
    """
    tensors, metadata = _read_tensors(path)
    name = architecture or stated_architecture(metadata) or _recognise(tensors, path)
    defaults = find_architecture(name)
    tensors = {
        name: np.asarray(value, np.float32) for name, value in tensors.items() if not is_passed_over(name, defaults)
    }
    return SourceWeights(
        tensors=tensors,
        architecture=name,
        image_size=int(metadata.get("image_size", defaults.image_size)),
        mean=_triple(metadata, "mean", defaults.mean),
        std=_triple(metadata, "std", defaults.std),
        interpolation=metadata.get("interpolation", defaults.interpolation),
        source=metadata.get("source", f"{path.name}, sha256 {_digest(path)}"),
        license=license or metadata.get("license", UNKNOWN),
    )


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns tensors and metadata of a file; those of torch have no metadata."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is no file of weights by its name; such files end in {', '.join(SUFFIXES)}")
    if path.suffix == SUFFIXES[0]:
        return read_weights(path)
    torch = import_torch(f"reading {path.name}")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler meets damage with errors of a dozen kinds
        raise UserError(
            f"{path} cannot be read as weights alone: it is damaged, or holds code besides arrays, which is not run; "
            "store its state_dict by itself"
        ) from error
    for key in NESTED:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
            break
    if not isinstance(stored, Mapping) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise UserError(f"{path} holds no state_dict, neither by itself nor under {', '.join(NESTED)}")
    return {_bare(name): value.float().numpy() for name, value in stored.items()}, {}


def _bare(name: str) -> str:
    while name.startswith(PREFIXES):
        name = functools.reduce(str.removeprefix, PREFIXES, name)
    return name


def _recognise(tensors: Mapping[str, np.ndarray], path: Path) -> str:
    """Returns the architecture whose every tensor but the classifier's is in `tensors` with its shape, and no other."""
    fitting, sizes = [], measured_sizes()
    for name, known in ARCHITECTURES.items():
        classifier = classifier_name(name)
        kept = {tensor: value.shape for tensor, value in tensors.items() if not is_passed_over(tensor, known)}
        found = _without(kept, classifier)
        if name in sizes:
            # to trace a network takes long, and to count the numbers in its layers does not
            parameters = sum(math.prod(shape) for tensor, shape in found.items() if not tensor.endswith(STATISTICS))
            of_one_class, of_each_class = sizes[name]
            if parameters != of_one_class.parameters - of_each_class.parameters:
                continue
        _, params, batch_stats = model_shapes(name, classes=1)
        if found == _without(expected_tensors(params | batch_stats, known.original_names), classifier):
            fitting.append(name)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(
            f"the tensors in {path} fit {' and '.join(fitting)}, which pad differently: name one by --architecture"
        )
    raise UserError(
        f"the tensors in {path} fit none of our networks as a whole; name one by --architecture to see what differs"
    )


def _without(shapes: Mapping[str, tuple[int, ...]], layer: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if not has_prefix(name, (layer,))}


def classifier_name(architecture: str) -> str:
    """Returns what the original of `architecture` calls its last layer."""
    return original_name(f"{CLASSIFIER}.bias", find_architecture(architecture).original_names).removesuffix(".bias")


def _triple(metadata: Mapping[str, str], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    try:
        values = numbers_of(metadata[key])
    except (KeyError, ValueError, TypeError):
        return default
    return values if len(values) == 3 else default


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
