"""Decoded radiographs, kept on disk and mapped into memory: every image is decoded once per size and resize."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.decode import DECODING, decode_square
from cxr_jax.data.examples import Example
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.prepared import AGAIN, PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.errors import UserError
from cxr_jax.images.clarity import clarified
from cxr_jax.runs import files
from cxr_jax.runs.locks import held, remove_stale
from cxr_jax.vocabulary import SPLIT_NAMES


def decoded_images(
    prepared: PreparedData, config: DataConfig, *, track: Track = silently
) -> UInt8[np.ndarray, "N S S"]:
    """Returns all images of the table, uint8 [N, S, S], memory-mapped read-only.

    They are decoded at the first call for a size, resize, interpolation and clarity, and kept beside the records. Two
    processes may do so at once: each writes its own file, and the last one stays.
    """
    how = "" if config.clarify == "none" else f"-{config.clarify}"
    name = f"{prepared.fingerprint[:16]}-{how_resized(config)}{how}.npy"
    shape = (len(prepared.examples), config.image_size, config.image_size)

    def make() -> Iterator[np.ndarray]:
        # TFDS loads itself by replacing Python's import for a moment, which a thread that draws a bar would run into.
        import tensorflow_datasets  # noqa: F401

        return _decoded(prepared, config)

    return cached_squares(prepared.decoded / name, shape, make, "Decoding", track=track)


def how_resized(config: DataConfig) -> str:
    """Returns what the names of caches say of size, resize, interpolation and decoding."""
    return f"{config.image_size}-{config.resize}-{config.interpolation}-{DECODING}"


def cached_squares(
    path: Path, shape: tuple[int, int, int], make: Callable[[], Iterable[np.ndarray]], title: str, *, track: Track
) -> UInt8[np.ndarray, "N S S"]:
    """Returns the squares kept at `path`, uint8 [N, S, S] of `shape`, memory-mapped read-only.

    Where they are not, `make` gives them one by one, uint8 [S, S], and they are kept. `track` shows that under `title`,
    once `make` has returned.

    Raises:
        UserError: they cannot be written, or not be read back.
    """
    if (squares := _mapped(path, shape)) is not None:
        return squares
    remove_stale(path.parent)
    made = make()
    with files.atomic_path(path) as unfinished, track(title, shape[0]) as advance:
        _write_decoded(unfinished, shape, made, advance)
    squares = _mapped(path, shape)
    if squares is None:
        raise UserError(f"{path} cannot be read back: check the disk")
    return squares


def encoded_images(prepared: PreparedData) -> Iterator[bytes]:
    """Yields the encoded image of every example, in the order of the table.

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
    """Returns the encoded images of these rows of the table, in the order of `rows`, without reading the others.

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
    """Returns the stored records of every split that there is, in the order of the table; each a TFDS data source."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(next(prepared.records.glob("*/*/dataset_info.json")).parent)
    decoders = {"image": tfds.decode.SkipDecoding()}
    splits = (split for split in SPLIT_NAMES if split in builder.info.splits)
    return [builder.as_data_source(split, decoders=decoders) for split in splits]


def _image_of(record: dict[str, Any], example: Example, prepared: PreparedData) -> bytes:
    """Returns the encoded image of a record that must be that of `example`."""
    if hashlib.sha256(record["image"]).hexdigest() != example.sha256:
        raise UserError(f"{prepared.path} is damaged, its records and its table differ: {AGAIN}")
    return record["image"]


def _decoded(prepared: PreparedData, config: DataConfig) -> Iterator[np.ndarray]:
    """Yields every image, uint8 [S, S], in the order of the table, decoded in threads."""

    def decode(item: tuple[str, bytes]) -> np.ndarray:
        """Returns one image as a square."""
        name, data = item
        square = decode_square(data, config.image_size, config.resize, config.interpolation, name=name)
        return clarified(square, config.clarify)

    names = (example.file for example in prepared.examples)
    return map_in_order(decode, zip(names, encoded_images(prepared), strict=True))


def _write_decoded(
    path: Path, shape: tuple[int, int, int], images: Iterable[np.ndarray], advance: Callable[[int], None]
) -> None:
    """Writes `images` to `path` as an .npy file of `shape`.

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
    """Returns the cache at `path`, or None if there is none of this shape."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None
