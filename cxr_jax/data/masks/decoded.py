"""Stored lung masks as squares of the size of the images, kept on disk beside them."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.cache import cached_squares, how_resized
from cxr_jax.data.decode import to_square
from cxr_jax.data.examples import Example
from cxr_jax.data.mask_record import mask_name
from cxr_jax.data.masks.preparation import WHITE
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.errors import UserError


def decoded_masks(
    prepared: PreparedData, config: DataConfig, wanted: str, *, track: Track = silently
) -> UInt8[np.ndarray, "N S S"]:
    """Returns the mask of every image of the table, uint8 [N, S, S]: 1 in the lungs, else 0; memory-mapped read-only.

    A mask is resized as its image is, and a pixel is lung where at least half of it was. An image without a mask has an
    empty one.

    Args:
        prepared: the radiographs.
        config: says how these are resized.
        wanted: what needs the masks, for the error.
        track: shows progress.

    Raises:
        UserError: there are none, or they cannot be read, or not be kept.
    """
    record = prepared.require_masks(wanted)
    path = prepared.decoded / f"{record.fingerprint[:16]}-masks-{how_resized(config)}.npy"
    shape = (len(prepared.examples), config.image_size, config.image_size)
    return cached_squares(
        path, shape, lambda: _squares(prepared, record.file, config), "Resizing the masks", track=track
    )


def rows_with_mask(prepared: PreparedData, wanted: str) -> Int32[np.ndarray, " M"]:
    """Returns the rows of the table that have a mask, ascending, int32 [M].

    Raises:
        UserError: there are no masks, which `wanted` needs, or their file cannot be read.
    """
    record = prepared.require_masks(wanted)
    with _opened(prepared, record.file) as archive:
        names = set(archive.namelist())
    return np.array([row for row in range(len(prepared.examples)) if mask_name(row) in names], np.int32)


def square_mask(mask: UInt8[np.ndarray, "H W"], example: Example, config: DataConfig) -> UInt8[np.ndarray, "S S"]:
    """Returns a mask, 0 or 255 [H, W], resized as its radiograph is, 1 in the lungs and else 0, uint8 [S, S]."""
    if mask.shape != (example.height, example.width) and config.resize != "squash":
        # a square: it is stretched to what its radiograph was before that was squashed
        mask = cv2.resize(mask, (example.width, example.height), interpolation=cv2.INTER_LINEAR)
    square = to_square(mask, config.image_size, config.resize, config.interpolation)
    return (square >= WHITE).astype(np.uint8)


def _squares(prepared: PreparedData, file: str, config: DataConfig) -> Iterator[np.ndarray]:
    """Yields every mask, uint8 [S, S], in the order of the table."""
    with _opened(prepared, file) as archive:
        names = set(archive.namelist())
        items = (
            (example, archive.read(name) if (name := mask_name(row)) in names else None)
            for row, example in enumerate(prepared.examples)
        )
        yield from map_in_order(functools.partial(_square, config=config), items)


def _square(item: tuple[Example, bytes | None], *, config: DataConfig) -> np.ndarray:
    example, data = item
    if data is None:
        return np.zeros((config.image_size, config.image_size), np.uint8)
    return square_mask(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), example, config)


def _opened(prepared: PreparedData, file: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(prepared.path / file)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the lung masks {prepared.path / file} cannot be read: add them again by `cxr-jax prepare --name "
            f"{prepared.path.name} --masks FOLDER`"
        ) from error
