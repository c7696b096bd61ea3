"""Weights under timm's names, fetched through timm or read from a file."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.models.pretrained import IGNORED, expected_tensors, read_weights
from cxr_jax.models.registry import ARCHITECTURES, find_architecture, model_shapes
from cxr_jax.porting.requirements import import_timm, import_torch

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
"""What files of weights end in; all but the first are read by torch."""

NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training scripts store the weights, those that are evaluated first."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm's weights are called on the hub."""

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
        kernel = self.tensors.get("classifier.weight")
        return None if kernel is None else kernel.shape[0]

    def metadata(self) -> dict[str, str]:
        """What stands beside the tensors in the file, as strings; lists as JSON."""
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
        """These weights less the last layer."""
        kept = {name: value for name, value in self.tensors.items() if not name.startswith("classifier.")}
        return replace(self, tensors=kept)


def fetch_from_timm(name: str) -> SourceWeights:
    """Published weights that timm calls `name`, such as `tf_efficientnetv2_s.in21k_ft_in1k`; without a tag the best.

    Raises UserError if we have no such network, timm has no such weights, they cannot be downloaded, or what came is
    damaged.
    """
    architecture, _, tag = name.partition(".")
    known = find_architecture(architecture).weights
    if not known:
        raise UserError(f"there are no published weights of {architecture}; give a file instead")
    timm = import_timm(f"porting {name}")
    full = f"{architecture}.{tag or known[0]}"
    if full not in timm.list_pretrained(f"{architecture}.*"):
        raise UserError(f"timm has no weights called {full}; choose one of {_listed(architecture, known)}")
    # its warning for every retry would bury the one sentence that counts
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        model = timm.create_model(full, pretrained=True)
    except Exception as error:  # hub, cache, network and disk each have errors of their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"timm could not fetch {full} ({reason}); download its file elsewhere and give the path in place of the "
            "name"
        ) from error
    config = model.pretrained_cfg
    require_intact(config.get("hf_hub_id") or "")
    return SourceWeights(
        tensors={name: value.numpy() for name, value in model.state_dict().items() if not name.endswith(IGNORED)},
        architecture=architecture,
        image_size=config["input_size"][-1],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        source=f"timm {timm.__version__}, {config.get('hf_hub_id') or full}",
        license=config.get("license") or UNKNOWN,
    )


def require_intact(repository: str) -> None:
    """Raise UserError if a file of `repository` in the hub's cache is not the one that the hub has.

    The hub's client checks the size of a download and nothing else. It names a large file by the sha256 that the hub
    told, so that the content can be held to that name; a cache without such names cannot be checked.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return
    for name in HUB_FILES if repository else ():
        found = try_to_load_from_cache(repository, name)
        path = Path(found).resolve() if isinstance(found, str) else None
        if path is not None and re.fullmatch("[0-9a-f]{64}", path.name) and _digest(path) != path.name:
            raise UserError(
                f"the download of {repository} is damaged, its sha256 is wrong: remove {path} and port again"
            )


def read_from_file(path: Path, architecture: str = "", license: str = "") -> SourceWeights:
    """The weights in the file at `path`, a safetensors file or one written by torch.

    What the file does not say of itself is that of `architecture`, which is found by the tensors' names and shapes
    where neither the file nor the caller names it. Raises UserError if the file cannot be read, holds more than
    arrays, or fits no network.
    """
    tensors, metadata = _read_tensors(path)
    tensors = {name: np.asarray(value, np.float32) for name, value in tensors.items() if not name.endswith(IGNORED)}
    name = architecture or metadata.get("architecture", "") or _recognise(tensors, path)
    defaults = find_architecture(name)
    return SourceWeights(
        tensors=tensors,
        architecture=name,
        image_size=int(metadata.get("image_size", defaults.image_size)),
        mean=_triple(metadata, "mean", defaults.mean),
        std=_triple(metadata, "std", defaults.std),
        interpolation=metadata.get("interpolation", "bicubic"),
        source=metadata.get("source", f"{path.name}, sha256 {_digest(path)}"),
        license=license or metadata.get("license", UNKNOWN),
    )


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a file; those of torch have no metadata."""
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
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _recognise(tensors: Mapping[str, np.ndarray], path: Path) -> str:
    """The architecture whose every tensor but the classifier's is in `tensors` with its shape, and no other."""
    found = {name: value.shape for name, value in tensors.items() if not name.startswith("classifier.")}
    for architecture in ARCHITECTURES:
        _, params, batch_stats = model_shapes(architecture, classes=1)
        expected = expected_tensors(params | batch_stats)
        if found == {name: shape for name, shape in expected.items() if not name.startswith("classifier.")}:
            return architecture
    raise UserError(
        f"the tensors in {path} fit none of our networks as a whole; name one by --architecture to see what differs"
    )


def _triple(metadata: Mapping[str, str], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in json.loads(metadata[key]))
    except (KeyError, ValueError, TypeError):
        return default
    return values if len(values) == 3 else default


def _listed(architecture: str, tags: tuple[str, ...]) -> str:
    return ", ".join(f"{architecture}.{tag}" for tag in tags)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
