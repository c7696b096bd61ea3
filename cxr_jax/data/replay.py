"""Images of other prepared data, mixed in with the training and validation images of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int32

from cxr_jax.config.data import DataConfig, ReplayConfig
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.images.image_set import ImageSet, JoinedRows, Replay

FIELD = "data.replay.dataset"


def open_replayed(prepared: PreparedData, config: DataConfig) -> PreparedData:
    """Returns the data that are mixed in with `prepared`.

    Raises:
        UserError: they are not prepared, are the same data, are of other classes, have images smaller than the network
            sees, or one set has training images that are test images of the other, or there at all.
    """
    name = config.replay.dataset
    try:
        other = PreparedData.open(name)
    except UserError as error:
        raise UserError(f"{FIELD}: {error}") from error
    if other.fingerprint == prepared.fingerprint:
        raise UserError(f"{FIELD} is {name}, which is data.dataset itself: name other data, or leave it out")
    if (other.classes, other.kind) != (prepared.classes, prepared.kind):
        raise UserError(
            f"{FIELD} is {name}, whose classes are {', '.join(other.classes)}, and those of {config.dataset} are "
            f"{', '.join(prepared.classes)}: mix data of the same classes"
        )
    largest = max(max(example.width, example.height) for example in other.examples)
    if largest < config.image_size:
        raise UserError(
            f"{FIELD} is {name}, whose images have {largest} pixels a side at most, and data.image_size is "
            f"{config.image_size}: replay images of that size, or train on smaller ones"
        )
    ours, theirs = (
        {example.sha256 for example in data.examples if example.split != "test"} for data in (prepared, other)
    )
    for first, trained, second in ((prepared, ours, other), (other, theirs, prepared)):
        if leaked := len(trained & second.test_images):
            raise UserError(
                f"{leaked:,} test images of {second.card['name']} are among the training images of "
                f"{first.card['name']}: results on them would be too good, so mix other data"
            )
    if common := len(ours & theirs):
        raise UserError(
            f"{common:,} images are in {prepared.card['name']} and in {other.card['name']}: one that is learned from "
            "with one of them could be a validation image of the other, so mix other data"
        )
    return other


def config_of_replayed(config: DataConfig) -> DataConfig:
    """Returns how the data that are mixed in are cut and resized: as the others."""
    return dataclasses.replace(config, dataset=config.replay.dataset, replay=ReplayConfig())


def drawn_for_validation(
    rows: Int32[np.ndarray, " N"], labels: np.ndarray, count: int, seed: int
) -> Int32[np.ndarray, " M"]:
    """Returns `count` of the validation `rows`, ascending, with the classes in the shares that `labels` [N] have."""
    order = np.random.default_rng(seed).permutation(len(rows))
    # where an image stands among those of its class, from 0 to 1: the first of all have every class in its share
    place = np.empty(len(rows))
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    return np.sort(rows[np.argsort(place, kind="stable")[:count]])


def mixed(own: ImageSet, replayed: ImageSet, name: str, visits: int | None) -> ImageSet:
    """Returns both sets as one, the replayed images last, with files and groups that begin with their data's `name`.

    An epoch visits `visits` of them; all where that is None.
    """
    stride = int(own.ids.max()) + 1
    return ImageSet(
        images=JoinedRows((own.images, replayed.images)),
        labels=np.concatenate([own.labels, replayed.labels]),
        ids=np.concatenate([own.ids, (replayed.ids + stride).astype(np.int32)]),
        files=(*own.files, *(f"{name}/{file}" for file in replayed.files)),
        groups=(*own.groups, *(f"{name}/{group}" for group in replayed.groups)),
        subtypes=(*own.subtypes, *replayed.subtypes),
        classes=own.classes,
        replay=None if visits is None else Replay(len(own), visits),
    )


def files_of_replayed(replayed: PreparedData) -> list[str]:
    """Returns how the files of data that are mixed in are called there, in the order of their table."""
    return [f"{replayed.card['name']}/{example.file}" for example in replayed.examples]


def told_replay(config: DataConfig, train: ImageSet, validation: ImageSet) -> dict[str, Any] | None:
    """Returns what the data card of a run says of what is mixed in, ready for JSON; None if nothing is."""
    if train.replay is None:
        return None
    other = PreparedData.open(config.replay.dataset)
    labels = train.labels[train.replay.first :]
    return {
        "dataset": other.card["name"],
        "fingerprint": other.fingerprint,
        "groups_sha256": other.groups_sha256,
        "share": config.replay.share,
        "training_images": len(labels),
        "classes": {name: int(np.sum(labels == label)) for label, name in enumerate(train.classes)},
        "visited_in_an_epoch": train.replay.visits,
        "validation_images": len({*validation.files} & {*files_of_replayed(other)}),
    }


def told_visits(config: DataConfig, train: ImageSet, validation: ImageSet) -> str:
    """Returns in a sentence what is mixed in with the training and the validation images."""
    told = told_replay(config, train, validation)
    reached = train.replay.visits / train.images_per_epoch
    short = "" if reached > config.replay.share - 0.01 else f", a share of {reached:.2f}, as there are no more"
    return (
        f"Replay: an epoch visits {train.replay.first:,} images of its own and {train.replay.visits:,} of "
        f"{told['training_images']:,} of {told['dataset']}, drawn anew{short}; {told['validation_images']:,} of "
        f"{len(validation):,} validation images are of {told['dataset']}"
    )
