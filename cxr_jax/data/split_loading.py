"""The splits of prepared data as a run sees them: which images are in each, and their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int32, UInt8

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.balancing import balance_as_barnett
from cxr_jax.data.cache import decoded_images
from cxr_jax.data.filling import FILLING, filled_by_repetition, filled_by_samples
from cxr_jax.data.findings import finding_labels
from cxr_jax.data.folds import assign_folds
from cxr_jax.data.masks.decoded import decoded_masks, rows_with_mask
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.prepared_boxes import prepared_boxes
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.quality.table import QualityTable, quality_table
from cxr_jax.data.replay import config_of_replayed, drawn_for_validation, mixed, open_replayed
from cxr_jax.data.splits import cut_by_group, cut_least_sharp, cut_lowest_numbers
from cxr_jax.errors import UserError
from cxr_jax.images.crops import CroppedRows
from cxr_jax.images.enlarged import EnlargedRows
from cxr_jax.images.image_set import ImageSet, Pixels, SelectedRows
from cxr_jax.images.regions import WHOLE, RegionRows
from cxr_jax.runs.clustered import Clustered
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS, SPLIT_NAMES

Table = TypeVar("Table", bound=Clustered)


def load_split(
    prepared: PreparedData, config: DataConfig, split: str, *, track: Track = silently, mapped: bool = False
) -> ImageSet:
    """Returns one split, decoded and resized as `config` says.

    `config.validation` says whether `val` is cut from train or is the source's own. Images that are cut are left out of
    `train`. In cross-validation, and only there, `train` includes the source's own val. `train` is balanced if
    `config.balancing` says so, by images that no other split has. The images may be memory-mapped. With `mapped` they
    are, and an image is read when it is needed, unless balancing adds changed images. Of images of which a region is
    shown, as `config.region` says, those without a mask are left out.

    Raises:
        UserError: the source has no such split, records, masks and cache cannot be read or written, or there are no
            masks that the region needs.
        ValueError: `split` is not one of SPLIT_NAMES.
    """
    if split not in SPLIT_NAMES:
        raise ValueError(f"split is {split!r}, but must be one of {SPLIT_NAMES}")
    if split == "val" and config.validation == "out_of_fold":
        raise UserError(
            'data.validation "out_of_fold" is only for an ensemble of folds, which cxr-jax crossval makes; '
            "choose another value to train one network"
        )
    _require_classes_for(config, prepared)

    def images_of(data: PreparedData, rows: np.ndarray) -> Pixels:
        decoded = decoded_images(data, config, track=track)
        images = SelectedRows(decoded, rows) if mapped else _taken(decoded, rows)
        if config.region != WHOLE:
            masks = decoded_masks(data, config, _wanted(config), track=track)
            images = RegionRows(images, SelectedRows(masks, rows), config.region)
            images = images if mapped else images[:]
        if config.crop == "lungs":
            images = CroppedRows(images, prepared_boxes(data, config, track=track).boxes[rows])
            images = images if mapped else images[:]
        return images

    def reduced_of(rows: np.ndarray) -> Pixels:
        smaller = replace(config, image_size=config.reduced_size, balancing="none")
        small = decoded_images(prepared, smaller, track=track)
        return EnlargedRows(SelectedRows(small, rows), config.image_size)

    return _assembled(prepared, config, split, _Pictures(images_of, reduced_of, config.image_size), track)


@dataclass(frozen=True)
class _Pictures:
    """What gives the pixels of a split, and of images that are added to it."""

    of: Callable[[PreparedData, np.ndarray], Pixels]  # the images of these rows of the data's table
    reduced: Callable[[np.ndarray], Pixels]  # the same of the data themselves, reduced and enlarged again
    side: int  # of all of them, in pixels


def _assembled(prepared: PreparedData, config: DataConfig, split: str, pictures: _Pictures, track: Track) -> ImageSet:
    """Returns a split of the data, with what is mixed in of others."""
    parts = parts_of_split(prepared, config, split, track=track)
    own, *others = (_split_of(data, config, split, rows, pictures) for data, rows in parts)
    if not others:
        return own
    (replayed,), name = others, parts[1][0].card["name"]
    visits = config.replay.beside(len(own), len(replayed)) if split == "train" else None
    return mixed(own, replayed, name, visits)


def parts_of_split(
    prepared: PreparedData, config: DataConfig, split: str, *, track: Track = silently
) -> list[tuple[PreparedData, Int32[np.ndarray, " N"]]]:
    """Returns the data that a split comes from, each with its rows of their table: one set, or with replay two.

    Of the data that are mixed in, `train` has all training images, of which an epoch visits some, and `val` as many of
    their validation images as `config.replay` says. `test` has none.

    Raises:
        UserError: as `rows_of_split`; or the data to mix in do not suit the others.
    """
    rows = rows_of_split(prepared, config, split, track=track)
    parts = [(prepared, rows)]
    if config.replay.dataset and split != "test":
        other = open_replayed(prepared, config)
        theirs = rows_of_split(other, config_of_replayed(config), split, track=track)
        if split == "val":
            labels = np.array([other.examples[row].label for row in theirs])
            count = config.replay.beside(len(rows), len(theirs))
            theirs = drawn_for_validation(theirs, labels, count, config.split_seed)
        parts.append((other, theirs))
    return parts


def quality_of_split(
    prepared: PreparedData, config: DataConfig, split: str, *, track: Track = silently
) -> tuple[QualityTable, np.ndarray]:
    """Returns the image quality of a split, with what is mixed in of other data, and the labels of its images as an
    `ImageSet` has them.
    """
    parts = parts_of_split(prepared, config, split, track=track)
    labels = [_labels_of(data, [data.examples[row].label for row in rows]) for data, rows in parts]
    tables = [quality_table(data, track=track).rows(rows) for data, rows in parts]
    return QualityTable.joined(tables), np.concatenate(labels)


def load_rows(
    prepared: PreparedData, config: DataConfig, rows: Int32[np.ndarray, " N"], *, track: Track = silently
) -> ImageSet:
    """Returns the images of these rows of the table, whichever split they are of, as `config` resizes them.

    Raises:
        UserError: records and cache cannot be read or written.
    """
    images = SelectedRows(decoded_images(prepared, config, track=track), rows)
    return _images_of(prepared, rows, images)


def _require_classes_for(config: DataConfig, prepared: PreparedData) -> None:
    """Raises UserError for choices that speak of NORMAL images, or of classes, where the data have others, or none."""
    classes = prepared.classes
    if config.balancing in FILLING and prepared.kind == FINDINGS:
        raise UserError(
            f'data.balancing is "{config.balancing}", which fills up classes, and {prepared.path} tells findings that '
            'occur together: set it to "none"'
        )
    for name, value in (("balancing", "barnett"), ("validation", "least_sharp")):
        if getattr(config, name) == value and classes != CLASS_NAMES:
            raise UserError(
                f'data.{name} is "{value}", which treats NORMAL images in a way of their own, and the classes of these '
                f"data are {', '.join(classes)}: take another value"
            )


def split_without_images(
    prepared: PreparedData, config: DataConfig, split: str, *, track: Track = silently
) -> ImageSet:
    """Returns what `load_split` does, with one black pixel in the place of every image; nothing is decoded for it."""

    def black(rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 1, 1), np.uint8)

    return _assembled(prepared, config, split, _Pictures(lambda data, rows: black(rows), black, 1), track)


def with_prepared_groups(prepared: PreparedData, config: DataConfig, split: str, table: Table, path: Path) -> Table:
    """Returns the stored predictions on a split with the groups of the prepared data.

    A table of an earlier version has the groups of the file names, though two of them hold identical files.

    Raises:
        UserError: the table, read from `path`, is not of the images of the split.
    """
    images = split_without_images(prepared, config, split)
    if table.file != images.files:
        raise UserError(f"{path} is not of the images of {split}: evaluate without --stored")
    return replace(table, group=images.groups)


def _split_of(
    prepared: PreparedData, config: DataConfig, split: str, rows: np.ndarray, pictures: _Pictures
) -> ImageSet:
    """Returns the images of a split's rows with what is known of them, balanced as `config` says."""
    loaded, first_id = _images_of(prepared, rows, pictures.of(prepared, rows)), len(prepared.examples)
    if split != "train" or config.balancing == "none":
        return loaded
    if config.balancing == "barnett":
        return balance_as_barnett(loaded, first_id=first_id)
    if config.balancing == "oversampling":
        return filled_by_repetition(loaded, config, lambda more: pictures.of(prepared, rows[more]), first_id=first_id)
    if config.balancing == "reduced":
        return filled_by_repetition(loaded, config, lambda more: pictures.reduced(rows[more]), first_id=first_id)
    training = tuple(prepared.examples[row] for row in rows)
    return filled_by_samples(
        loaded, config, training, lambda samples: EnlargedRows(samples, pictures.side), first_id=first_id
    )


def _images_of(prepared: PreparedData, rows: np.ndarray, images: Pixels) -> ImageSet:
    """Returns the images of some rows with what is known of them."""
    examples = [prepared.examples[row] for row in rows]
    return ImageSet(
        images=images,
        labels=_labels_of(prepared, [example.label for example in examples]),
        ids=rows,
        files=tuple(example.file for example in examples),
        groups=tuple(example.group for example in examples),
        subtypes=tuple(example.subtype for example in examples),
        classes=prepared.classes,
    )


def _labels_of(prepared: PreparedData, labels: Sequence[str]) -> np.ndarray:
    """Returns the classes of N images, int32 [N]; of findings the labels of each, float32 [N, K], NaN if unknown."""
    if prepared.kind == FINDINGS:
        return finding_labels(labels, prepared.classes)
    return np.array([prepared.classes.index(label) for label in labels], np.int32)


def rows_of_split(
    prepared: PreparedData, config: DataConfig, split: str, *, track: Track = silently
) -> Int32[np.ndarray, " N"]:
    """Returns the rows of the table that make up a split, ascending, int32 [N]; UserError if there are none.

    Where a region of the images is shown they are those that have a mask.
    """
    rows = _rows_of_whole_split(prepared, config, split, track)
    if config.region == WHOLE:
        return rows
    having = rows[np.isin(rows, rows_with_mask(prepared, _wanted(config)))]
    if not len(having):
        raise UserError(f"no image of {split} in {prepared.path} has a lung mask, which {_wanted(config)} needs")
    return having


def masks_of_split(
    prepared: PreparedData, config: DataConfig, split: str, wanted: str, *, track: Track = silently
) -> UInt8[np.ndarray, "N S S"]:
    """Returns the lung mask of every image of a split, in the order of `load_split`, 0 outside and for images without.

    Raises:
        UserError: the data have no masks, which `wanted` needs, or these cannot be read.
    """
    prepared.require_masks(wanted)
    side = config.image_size
    return np.concatenate(
        [
            np.zeros((len(rows), side, side), np.uint8)
            if data.masks is None
            else decoded_masks(data, config, wanted, track=track)[rows]
            for data, rows in parts_of_split(prepared, config, split, track=track)
        ]
    )


def left_out_for_masks(prepared: PreparedData, config: DataConfig, splits: Sequence[str]) -> int:
    """Returns how many images of `splits` are left out because they have no mask, which the config's region needs."""
    if config.region == WHOLE:
        return 0
    whole = replace(config, region=WHOLE)
    return sum(
        len(rows_of_split(prepared, whole, name)) - len(rows_of_split(prepared, config, name)) for name in splits
    )


def _wanted(config: DataConfig) -> str:
    return f'data.region "{config.region}"'


def _rows_of_whole_split(prepared: PreparedData, config: DataConfig, split: str, track: Track) -> np.ndarray:
    if split != "test" and config.validation in ("fold", "out_of_fold"):
        return _rows_of_folds(prepared, config, split)
    cuts = config.validation != "official"
    stored = "train" if split == "val" and cuts else split
    rows = [row for row, example in enumerate(prepared.examples) if example.split == stored]
    if not rows:
        advice = (
            'set data.validation to "grouped", which cuts one from train' if split == "val" else "prepare one with it"
        )
        raise UserError(f"{prepared.path} has no {split} split of its own: {advice}")
    if stored == "train" and cuts:
        cut = _validation_cut(prepared, config, rows, track)
        rows = [row for row, taken in zip(rows, cut, strict=True) if taken == (split == "val")]
        if not rows:
            raise UserError(f"{prepared.path} has too few groups in train to cut a validation split from it")
    return np.array(rows, np.int32)


def _rows_of_folds(prepared: PreparedData, config: DataConfig, split: str) -> np.ndarray:
    """Returns the rows of `train` or `val` in cross-validation, which shares out all images but those of test.

    Of one fold they are what it is trained on and what it holds out; of all folds together they are twice everything.
    """
    rows = [row for row, example in enumerate(prepared.examples) if example.split != "test"]
    if config.validation == "fold":
        examples = [prepared.examples[row] for row in rows]
        assigned = assign_folds(examples, config.folds, config.split_seed, prepared.classes, prepared.kind)
        rows = [row for row, fold in zip(rows, assigned, strict=True) if (fold == config.fold) == (split == "val")]
    return np.array(rows, np.int32)


def _validation_cut(prepared: PreparedData, config: DataConfig, rows: list[int], track: Track) -> list[bool]:
    """Returns for each row of train whether it is cut from it for validation."""
    train, fraction, seed = [prepared.examples[row] for row in rows], config.validation_fraction, config.split_seed
    if config.validation == "numbered":
        return cut_lowest_numbers(train, fraction)
    if config.validation == "least_sharp":
        return cut_least_sharp(train, fraction, seed, quality_table(prepared, track=track).columns["sharpness"][rows])
    return cut_by_group(train, fraction, seed)


def _taken(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns `images[rows]`, without a copy where the rows follow each other."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return images[rows[0] : rows[-1] + 1]
    return images[rows]
