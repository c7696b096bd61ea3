"""Rare classes of train filled up to the most frequent one: by repeated images, by reduced ones, or by samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int32

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.examples import Example
from cxr_jax.data.synthetic.record import Manifest, read_manifest, read_samples, require_trained_apart
from cxr_jax.errors import UserError
from cxr_jax.images.image_set import ImageSet, JoinedRows, Pixels
from cxr_jax.runs.files import at_home
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.terminal import as_typed
from cxr_jax.vocabulary import SYNTHETIC

FILLING = ("oversampling", "reduced", "dcgan")
"""Values of data.balancing that give rarer classes as many images as the most frequent one has."""

_WORDS = {"oversampling": "repeated", "reduced": "reduced"}

_CARD_ENTRY = "balancing"


def lacking(labels: Int32[np.ndarray, " N"]) -> Int32[np.ndarray, " K"]:
    """Returns how many images each class of `labels` lacks to be as frequent as the most frequent one."""
    counts = np.bincount(labels)
    return np.where(counts > 0, counts.max() - counts, 0).astype(np.int32)


def repeated_rows(labels: Int32[np.ndarray, " N"], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the images that are added, int [M], and how many times each was there before, int [M].

    All images of a class are repeated as often, to within one; which of them once more is drawn by `seed`.
    """
    generator = np.random.default_rng(seed)
    rows, visits = [np.zeros(0, int)], [np.zeros(0, int)]
    for label, count in enumerate(lacking(labels)):
        members = np.flatnonzero(labels == label)
        whole, rest = divmod(int(count), max(len(members), 1))
        rows += [members] * whole + [np.sort(generator.choice(members, rest, replace=False))]
        visits += [np.full(len(members), visit + 1) for visit in range(whole)] + [np.full(rest, whole + 1)]
    return np.concatenate(rows), np.concatenate(visits)


def filled_by_repetition(
    images: ImageSet, config: DataConfig, pixels_of: Callable[[np.ndarray], Pixels], *, first_id: int
) -> ImageSet:
    """Returns `images` followed by those of `repeated_rows`, whose pixels `pixels_of` gives by their rows.

    A repeated image keeps class, subtype and group. Its file is `FILE#repeated1` (`#reduced1`, `#repeated2` ...) and
    its id that of its original plus `first_id` times 1 (2 ...). `first_id` must be larger than every id.
    """
    rows, visits = repeated_rows(images.labels, config.split_seed)
    word = _WORDS[config.balancing]
    return _joined(
        images,
        pixels_of(rows),
        labels=images.labels[rows],
        ids=images.ids[rows] + visits * first_id,
        files=tuple(f"{images.files[row]}#{word}{visit}" for row, visit in zip(rows, visits, strict=True)),
        groups=tuple(images.groups[row] for row in rows),
        subtypes=tuple(images.subtypes[row] for row in rows),
    )


def filled_by_samples(
    images: ImageSet,
    config: DataConfig,
    training: tuple[Example, ...],
    pixels_of: Callable[[np.ndarray], Pixels],
    *,
    first_id: int,
) -> ImageSet:
    """Returns `images` followed by samples of a generator, as many as their class lacks, always the first ones.

    A sample has the class that its generator learned, the subtype `synthetic`, and a group of its own. `pixels_of`
    gives the images [M, s, s] of samples [M, s, s]. `training` are the examples of `images`.

    Raises:
        UserError: the samples are not there or too few, do not suit the config, or were made from an image that is not
            among `images`.
    """
    manifest = read_manifest(config.synthetic)
    label = _label_of(manifest, images, config)
    require_trained_apart(manifest, training, config.dataset)
    count = int(lacking(images.labels)[label])
    if manifest.count < count:
        folder = at_home(config.synthetic)
        again = as_typed("cxr-jax", "synthesize", folder / "config.toml", "--out", folder, "--resume")
        raise UserError(
            f"data.synthetic has {manifest.count:,} samples, and {manifest.label} lacks {count:,} images: {again} "
            f"--synthesis.samples {count} makes more"
        )
    return _joined(
        images,
        pixels_of(read_samples(config.synthetic)[:count]),
        labels=np.full(count, label),
        ids=first_id + np.arange(count),
        files=tuple(f"{SYNTHETIC}/{number:05d}" for number in range(count)),
        groups=tuple(f"{SYNTHETIC}/{number:05d}" for number in range(count)),
        subtypes=(SYNTHETIC,) * count,
    )


def _label_of(manifest: Manifest, images: ImageSet, config: DataConfig) -> int:
    """Returns the class of the samples; UserError if the data have none like it, or the samples do not suit."""
    if manifest.label not in images.classes:
        raise UserError(
            f"data.synthetic has samples of {manifest.label}, and the classes here are {', '.join(images.classes)}"
        )
    if manifest.image_size > config.image_size:
        raise UserError(
            f"data.synthetic has samples of {manifest.image_size} pixels, and data.image_size is {config.image_size}: "
            "synthesize smaller ones"
        )
    if manifest.resize != config.resize:
        raise UserError(
            f'data.synthetic was made from images with data.resize "{manifest.resize}", and here it is '
            f'"{config.resize}": samples would have another shape of chest, so synthesize with the same'
        )
    return images.classes.index(manifest.label)


def _joined(images: ImageSet, pixels: Pixels, *, labels: np.ndarray, ids: np.ndarray, **told: tuple) -> ImageSet:
    return ImageSet(
        images=JoinedRows((images.images, pixels)),
        labels=np.concatenate([images.labels, labels.astype(np.int32)]),
        ids=np.concatenate([images.ids, ids.astype(np.int32)]),
        classes=images.classes,
        **{name: (*getattr(images, name), *more) for name, more in told.items()},
    )


def told_filling(config: DataConfig, train: ImageSet, first_id: int) -> dict[str, Any]:
    """Returns what the data card of a run says of images that were added to rare classes; empty if none were."""
    if config.balancing not in FILLING:
        return {}
    added = _added(train, first_id)
    told = {"by": config.balancing, "training_images": len(train), "added": added}
    if config.balancing == "dcgan":
        manifest = read_manifest(config.synthetic)
        told["array_sha256"] = manifest.array_sha256
        told["samples_sha256"] = _sha256_of(config, sum(added.values()))
        told["generator_trained_on"] = manifest.trained_on_fingerprint
        told["note"] = manifest.note
    return {_CARD_ENTRY: told}


def _added(train: ImageSet, first_id: int) -> dict[str, int]:
    """Returns how many images were added to each class."""
    added = train.labels[train.ids >= first_id]
    return {name: int(np.sum(added == label)) for label, name in enumerate(train.classes)}


def told_added(config: DataConfig, train: ImageSet, first_id: int) -> str:
    """Returns in a sentence what was added to rare classes; empty if nothing was."""
    if config.balancing not in FILLING:
        return ""
    of = {"oversampling": "repeated ones", "reduced": "repeated ones, reduced and enlarged again"}
    what = of.get(config.balancing, "synthetic ones, which are no radiographs")
    added = ", ".join(f"{count:,} of {name}" for name, count in _added(train, first_id).items() if count)
    return f"Balanced: {added or 'none'} of the {len(train):,} training images are {what}"


def require_samples_of_run(run: RunFolder, config: DataConfig) -> None:
    """Raises UserError if the samples that a run was begun with are not there, or are others now."""
    told = read_json(run.data_card).get(_CARD_ENTRY, {}) if run.data_card.is_file() else {}
    if "samples_sha256" in told:  # a generator that made more since still has them
        same = _sha256_of(config, sum(told["added"].values())) == told["samples_sha256"]
    else:
        same = "array_sha256" not in told or read_manifest(config.synthetic).array_sha256 == told["array_sha256"]
    if not same:
        raise UserError(f"the samples in {config.synthetic} are not those that {run.path} was started with")


def _sha256_of(config: DataConfig, count: int) -> str:
    """Returns the sha256 of the first `count` samples."""
    return hashlib.sha256(np.ascontiguousarray(read_samples(config.synthetic)[:count])).hexdigest()
