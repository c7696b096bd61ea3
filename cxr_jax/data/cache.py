"""Decoded radiographs, kept on disk and mapped into memory: every image is decoded once per size and resize."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.balancing import balance_as_barnett
from cxr_jax.data.decode import DECODING, decode_square
from cxr_jax.data.examples import Example
from cxr_jax.data.image_set import ImageSet, SelectedRows
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.prepared import AGAIN, PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.splits import cut_by_group
from cxr_jax.errors import UserError
from cxr_jax.runs import files
from cxr_jax.runs.locks import held, remove_stale
from cxr_jax.vocabulary import SPLIT_NAMES


def load_split(
    prepared: PreparedData, config: DataConfig, split: str, *, track: Track = silently, mapped: bool = False
) -> ImageSet:
    """Return one split, decoded and resized as `config` says.

    `val` is cut from train by group, or the source's own, as `config.validation` says; what is cut is left out of
    `train`, and the source's own val is never part of it. `train` is balanced if `config.balancing` says so. The
    images may be memory-mapped; with `mapped` they are, and an image is read when it is asked for, unless balancing
    adds changed ones.

    Raises:
        UserError: the source has no such split, or records and cache cannot be read or written.
        ValueError: `split` is not one of SPLIT_NAMES.
    """
    if split not in SPLIT_NAMES:
        raise ValueError(f"split is {split!r}, but must be one of {SPLIT_NAMES}")
    rows = rows_of_split(prepared, config, split)
    examples = [prepared.examples[row] for row in rows]
    decoded = decoded_images(prepared, config, track=track)
    images = SelectedRows(decoded, rows) if mapped else _taken(decoded, rows)
    loaded = ImageSet(
        images=images,
        labels=np.array([example.label_index for example in examples], np.int32),
        ids=rows,
        files=tuple(example.file for example in examples),
        groups=tuple(example.group for example in examples),
        subtypes=tuple(example.subtype for example in examples),
    )
    if split == "train" and config.balancing == "barnett":
        return balance_as_barnett(loaded, first_id=len(prepared.examples))
    return loaded


def rows_of_split(prepared: PreparedData, config: DataConfig, split: str) -> Int32[np.ndarray, " N"]:
    """Return the rows of the table that make up a split, ascending, int32 [N]; UserError if there are none."""
    stored = "train" if split == "val" and config.validation == "grouped" else split
    rows = [row for row, example in enumerate(prepared.examples) if example.split == stored]
    if not rows:
        advice = (
            'set data.validation to "grouped", which cuts one from train' if split == "val" else "prepare one with it"
        )
        raise UserError(f"{prepared.path} has no {split} split of its own: {advice}")
    if stored == "train" and config.validation == "grouped":
        train = [prepared.examples[row] for row in rows]
        cut = cut_by_group(train, config.validation_fraction, config.split_seed)
        rows = [row for row, taken in zip(rows, cut, strict=True) if taken == (split == "val")]
        if not rows:
            raise UserError(f"{prepared.path} has too few groups in train to cut a validation split from it")
    return np.array(rows, np.int32)


def decoded_images(
    prepared: PreparedData, config: DataConfig, *, track: Track = silently
) -> UInt8[np.ndarray, "N S S"]:
    """Return all images of the table, uint8 [N, S, S], memory-mapped read-only.

    They are decoded at the first call for a size, resize and interpolation, and kept beside the records. Two processes
    may do so at once: each writes its own file, and the last one stays.
    """
    how = f"{config.image_size}-{config.resize}-{config.interpolation}-{DECODING}"
    name = f"{prepared.fingerprint[:16]}-{how}.npy"
    path = prepared.decoded / name
    shape = (len(prepared.examples), config.image_size, config.image_size)
    if (images := _mapped(path, shape)) is not None:
        return images
    # TFDS loads itself by replacing Python's import for a moment, which a thread that draws a bar would run into.
    import tensorflow_datasets  # noqa: F401

    remove_stale(prepared.decoded)
    with files.atomic_path(path) as unfinished, track("Decoding", shape[0]) as advance:
        _write_decoded(unfinished, shape, _decoded(prepared, config), advance)
    images = _mapped(path, shape)
    if images is None:
        raise UserError(f"{path} cannot be read back: check the disk")
    return images


def encoded_images(prepared: PreparedData) -> Iterator[bytes]:
    """Yield the encoded image of every example, in the order of the table.

    Raises:
        UserError: the records are missing, damaged or belong to another table.
    """
    expected = iter(prepared.examples)
    try:
        for records in _records(prepared):
            for record in records:
                yield _image_of(record, next(expected), prepared)
    except (OSError, StopIteration, RuntimeError, ValueError) as error:
        raise UserError(f"the records in {prepared.records} cannot be read: {AGAIN}") from error


def encoded_images_at(prepared: PreparedData, rows: Sequence[int]) -> list[bytes]:
    """Return the encoded images of these rows of the table, in the order of `rows`, without reading the others.

    Raises:
        UserError: the records are missing, damaged or belong to another table.
    """
    try:
        places = [(records, index) for records in _records(prepared) for index in range(len(records))]
        found = [(records[index], prepared.examples[row]) for row in rows for records, index in [places[row]]]
    except (OSError, StopIteration, RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"the records in {prepared.records} cannot be read: {AGAIN}") from error
    return [_image_of(record, example, prepared) for record, example in found]


def _records(prepared: PreparedData) -> list[Any]:
    """Return the stored records of every split that there is, in the order of the table; each a TFDS data source."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(next(prepared.records.glob("*/*/dataset_info.json")).parent)
    decoders = {"image": tfds.decode.SkipDecoding()}
    splits = (split for split in SPLIT_NAMES if split in builder.info.splits)
    return [builder.as_data_source(split, decoders=decoders) for split in splits]


def _image_of(record: dict[str, Any], example: Example, prepared: PreparedData) -> bytes:
    """Return the encoded image of a record that must be that of `example`."""
    if hashlib.sha256(record["image"]).hexdigest() != example.sha256:
        raise UserError(f"{prepared.path} is damaged, its records and its table differ: {AGAIN}")
    return record["image"]


def _decoded(prepared: PreparedData, config: DataConfig) -> Iterator[np.ndarray]:
    """Yield every image, uint8 [S, S], in the order of the table, decoded in threads."""

    def decode(item: tuple[str, bytes]) -> np.ndarray:
        """Return one image as a square."""
        name, data = item
        return decode_square(data, config.image_size, config.resize, config.interpolation, name=name)

    names = (example.file for example in prepared.examples)
    return map_in_order(decode, zip(names, encoded_images(prepared), strict=True))


def _write_decoded(
    path: Path, shape: tuple[int, int, int], images: Iterator[np.ndarray], advance: Callable[[int], None]
) -> None:
    """Write `images` to `path` as an .npy file of `shape`.

    Written rather than mapped: a full disk is then an error that can be told, not a fatal signal.
    """
    with path.open("wb") as file, held(path, f"{path} is being written"):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for image in images:
            file.write(image.tobytes())
            advance(1)
        file.flush()
        # without this a power cut can leave a cache of the right size that is black
        os.fsync(file.fileno())


def _mapped(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Return the cache at `path`, or None if there is none of this shape."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _taken(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return `images[rows]`, without a copy where the rows follow each other."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return images[rows[0] : rows[-1] + 1]
    return images[rows]
