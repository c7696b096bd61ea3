"""Porting: a source's weights checked, compared with timm's own network, and written as one file."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save

from cxr_jax.data.progress import Track, silently
from cxr_jax.errors import UserError
from cxr_jax.models.pretrained import CHECKSUM, IGNORED, LoadedWeights, checksum, fit_weights
from cxr_jax.models.registry import model_shapes
from cxr_jax.models.state import ArrayDict, merge_model
from cxr_jax.porting.hub import download_folder, fetch, published_name
from cxr_jax.porting.originals import original_network
from cxr_jax.porting.runs import read_run
from cxr_jax.porting.sources import SourceWeights, read_from_file, read_published
from cxr_jax.runs.files import at_home, remove, write_bytes
from cxr_jax.runs.folder import RunFolder

IMAGENET_CLASSES = 1000

CHECK_SIZE = 97
"""Side in pixels of the images that both networks are given: odd, so that a wrong padding shows."""

LARGEST_DIFFERENCE = 1e-6
"""In relative L2 norm; float64 leaves 1e-9 in the worst of untrained networks, a mistake 1e-3 and more."""


@dataclass(frozen=True)
class Ported:
    """What a port did."""

    path: Path
    weights: SourceWeights  # as written
    parameters: int
    dropped_classes: int | None  # classes of the classifier that was left out; None if none was
    difference: float | None  # from timm's output, in relative L2 norm; None without timm's network
    sha256: str
    size: int  # of the file in bytes


@dataclass(frozen=True)
class Source:
    """What is to be ported: a file, published weights by their name, or a trained run."""

    file: Path | None
    full_name: str = ""  # of published weights
    run: RunFolder | None = None


def find_source(name_or_file: str) -> Source:
    """Returns the source called `name_or_file`: a file if there is one of that name or it looks like one, else timm's.

    Raises UserError if there is no such file, and no weights of that name are known to be published.
    """
    path = at_home(name_or_file)
    if path.is_file():
        return Source(path)
    if RunFolder(path).network.is_file():
        return Source(None, run=RunFolder(path))
    if path.parent != Path() or path.suffix in (".safetensors", ".pth", ".pt"):
        raise UserError(f"there is no file {path}; give a file of weights, or a name such as mobilenetv2_100")
    return Source(None, published_name(name_or_file))


def open_source(
    source: Source, out: Path, architecture: str = "", license: str = "", track: Track = silently
) -> SourceWeights:
    """Returns the weights of `source`; published ones are fetched, and kept beside `out` until that is written.

    `architecture` and `license` are for files that do not say them. Raises UserError as `fetch` and `read_from_file`
    do.
    """
    if source.run is not None:
        return read_run(source.run, license)
    if source.file is not None:
        return read_from_file(source.file, architecture, license)
    path, origin = fetch(source.full_name, download_folder(out, source.full_name), track=track)
    return read_published(path, source.full_name, origin)


def forget_download(source: Source, out: Path) -> None:
    """Deletes what was fetched for `out`, now that it is written."""
    if source.full_name:
        remove(download_folder(out, source.full_name))


def port(weights: SourceWeights, out: Path, *, classes: int = IMAGENET_CLASSES, replace: bool = False) -> Ported:
    """Writes `weights` to `out` as a safetensors file that `load_weights` takes, and tells what was done.

    A classifier of another number of classes than `classes` is left out. Before anything is written, all weights must
    fit the network. If timm is installed, the logits must be those of timm's network. `out` is written atomically. It
    must not exist unless `replace` is given. Raises UserError otherwise.
    """
    check_destination(out, replace=replace)
    dropped = weights.classes if weights.classes not in (None, classes) else None
    if dropped is not None:
        weights = weights.without_classifier()
    graphdef, params, batch_stats = model_shapes(weights.architecture, classes=classes)
    metadata = weights.metadata()
    loaded = fit_weights(weights.tensors, metadata, weights.source, weights.architecture, params, batch_stats)
    difference = difference_from_original(weights, graphdef, loaded)
    if difference is not None and not difference <= LARGEST_DIFFERENCE:
        raise UserError(
            f"{weights.architecture} with these weights differs from timm's by {difference:.1e} in relative norm, more "
            f"than {LARGEST_DIFFERENCE:.0e}; nothing was written: please report it with the versions of timm and torch"
        )
    tensors = {name: np.ascontiguousarray(value) for name, value in weights.tensors.items()}
    data = save(tensors, metadata | {CHECKSUM: checksum(tensors)})
    write_bytes(out, data)
    return Ported(
        path=out,
        weights=weights,
        parameters=sum(math.prod(value.shape) for name, value in params.items() if name not in loaded.fresh),
        dropped_classes=dropped,
        difference=difference,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )


def check_destination(out: Path, *, replace: bool) -> None:
    """Raises UserError if `out` is not named as a safetensors file, or exists and may not be replaced."""
    if out.suffix != ".safetensors":
        raise UserError(f"{out} must be called something.safetensors, because that is what is written")
    if out.exists() and not replace:
        raise UserError(f"{out} exists already; choose another name, or replace it by --replace")


def difference_from_original(weights: SourceWeights, graphdef: nnx.GraphDef, loaded: LoadedWeights) -> float | None:
    """Returns how far our output is from the original's on random images, in relative L2 norm.

    The output is the logits, or the pooled features if there are no weights of a classifier. It is computed in float64,
    because in float32 a deep network can enlarge rounding errors until they look like mistakes. None if timm is not
    installed or has no such network.
    """
    try:
        theirs = original_network(weights.architecture, weights.classes or 0)
    except UserError:
        return None
    if theirs is None:
        return None
    import torch

    images = np.random.default_rng(0).normal(size=(2, CHECK_SIZE, CHECK_SIZE, 3))
    theirs.eval()
    counters = {name: value for name, value in theirs.state_dict().items() if name.endswith(IGNORED)}
    theirs.load_state_dict(counters | {name: torch.from_numpy(value) for name, value in weights.tensors.items()})
    with torch.inference_mode():
        expected = theirs.double()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()

    @jax.jit
    def output(params: ArrayDict, batch_stats: ArrayDict, images: jax.Array) -> jax.Array:
        model = merge_model(graphdef, params, batch_stats)
        return model(images) if weights.classes else model.pooled(images)

    # a fresh classifier has a shape and no values, and pooled features need none
    zeros = {name: np.zeros(loaded.params[name].shape) for name in loaded.fresh}
    with jax.enable_x64(True):
        wide = [
            {name: np.asarray(value, np.float64) for name, value in part.items()}
            for part in (loaded.params | zeros, loaded.batch_stats)
        ]
        found = np.asarray(output(*wide, images))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
