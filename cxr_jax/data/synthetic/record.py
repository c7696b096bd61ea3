"""What a generator made, as it is kept for training: an array of its own, and what it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import UInt8

from cxr_jax.data.examples import Example
from cxr_jax.errors import UserError
from cxr_jax.runs.files import at_home, write_bytes, write_json
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import SYNTHETIC_KEYWORD, SYNTHETIC_TEXT

SCHEMA_VERSION = 1
"""Version of the manifest."""

MANIFEST, ARRAY, PICTURES = "manifest.json", "samples.safetensors", "samples"
"""Files of a folder of `cxr-jax synthesize`, and the folder of its samples as pictures."""

_IMAGES = "images"
_AGAIN = "make the samples again with cxr-jax synthesize"


@dataclass(frozen=True)
class TrainedOn:
    """The images that a generator learned from."""

    dataset: str  # name of the prepared data
    data_fingerprint: str
    images: tuple[str, ...]  # sha256 of each, as it is stored

    @property
    def fingerprint(self) -> str:
        """sha256 of which images they are, hexadecimal; their order does not enter."""
        return hashlib.sha256("\n".join(sorted(self.images)).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a folder of samples holds."""

    note: str  # what they are, in words
    label: str  # class that they are like
    image_size: int
    resize: str  # what happened to the aspect ratio of the images that taught them, as data.resize
    count: int
    array_sha256: str  # of the file of the array
    config_sha256: str  # of the config.toml of the generator
    trained_on: TrainedOn
    trained_on_fingerprint: str
    pictures: dict[str, str]  # sha256 of each picture, by its name


def write_samples(
    folder: Path,
    images: UInt8[np.ndarray, "N S S"],
    *,
    label: str,
    resize: str,
    config_sha256: str,
    trained_on: TrainedOn,
    pictures: dict[str, str],
) -> None:
    """Writes the samples as an array into `folder`, and then what they are.

    The array holds no mark in its pixels: a network that learned from marked normals would learn the mark. No viewer
    opens its file, and nothing takes it for a radiograph.
    """
    metadata = {SYNTHETIC_KEYWORD: SYNTHETIC_TEXT, "label": label, "config_sha256": config_sha256}
    data = safetensors.numpy.save({_IMAGES: np.ascontiguousarray(images)}, metadata)
    write_bytes(folder / ARRAY, data)
    manifest = Manifest(
        note=f"{SYNTHETIC_KEYWORD}: {SYNTHETIC_TEXT}; for training alone, never for validation or test",
        label=label,
        resize=resize,
        image_size=images.shape[1],
        count=len(images),
        array_sha256=hashlib.sha256(data).hexdigest(),
        config_sha256=config_sha256,
        trained_on=trained_on,
        trained_on_fingerprint=trained_on.fingerprint,
        pictures=pictures,
    )
    write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, **fields_to_json(manifest)})


def read_manifest(folder: str | Path) -> Manifest:
    """Returns what a folder of samples says that it holds.

    Raises:
        UserError: it is no such folder, not finished, damaged, or of another version.
    """
    path = at_home(folder)
    if not (path / MANIFEST).is_file():
        raise UserError(f"data.synthetic is {folder}, which holds no samples of a generator: {_AGAIN}")
    return read_record(path / MANIFEST, Manifest, version=SCHEMA_VERSION, where="manifest", advice=_AGAIN)


def read_samples(folder: str | Path) -> UInt8[np.ndarray, "N S S"]:
    """Returns the samples of a folder, without a mark in their pixels.

    Raises:
        UserError: they are not there, or not what the manifest says.
    """
    manifest, path = read_manifest(folder), at_home(folder) / ARRAY
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest.array_sha256:
            raise ValueError("its content is another")
        images = safetensors.numpy.load(data)[_IMAGES]
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} is not what its manifest says ({error}): {_AGAIN}") from error
    return images


def require_trained_apart(manifest: Manifest, training: Sequence[Example], data: str) -> None:
    """Raises UserError if a generator has seen an image that is not among the `training` images of a run on `data`.

    An image that is cut for validation, or is of test, must have taught no image that the run learns from.
    """
    allowed = {example.sha256 for example in training}
    foreign = sum(image not in allowed for image in manifest.trained_on.images)
    if foreign:
        raise UserError(
            f"data.synthetic: its generator learned from {foreign:,} of {len(manifest.trained_on.images):,} images of "
            f"{manifest.trained_on.dataset} that are no training images of {data} under this cut of validation, so "
            "that validation would leak into training: synthesize with the same dataset, data.validation, "
            "data.validation_fraction and data.split_seed"
        )
