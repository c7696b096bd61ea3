"""Offline balancing of the normals, as in Barnett's study of MobileNetV2 (2023)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from cxr_jax.images.image_set import ImageSet
from cxr_jax.vocabulary import NORMAL

ENLARGEMENT = 1.3
ROTATION = 20.0
"""Degrees, counterclockwise, as MATLAB's imrotate turns."""

BLOCK = 600
"""How many normals each of the first three changes is made of."""


def balance_as_barnett(images: ImageSet, *, first_id: int) -> ImageSet:
    """Returns `images` followed by changed copies of its normals.

    Of the normals, in the order of `images` (file order): 1-600 enlarged by 30 % (the central 1/1.3 at full size),
    1-600 flipped top to bottom, 601-1200 rotated by 20 degrees, 1201 to the last flipped left to right. 1,341 normals
    become 3,282; with fewer normals the same rule gives fewer copies.

    The study leaves open how the rotation treats the frame: here the size is kept, corners that leave it are lost and
    those that enter are black. Enlarging and rotation interpolate linearly about the centre of the image.

    A copy keeps class, subtype and group. Its file is `FILE#enlarged` (`#upside-down`, `#rotated`, `#mirrored`). Its id
    is that of its original plus `first_id` times 1 (2, 3, 4). `first_id` must be larger than every id.
    """
    normals = np.flatnonzero(images.labels == NORMAL)
    plan: tuple[tuple[str, Callable[[np.ndarray], np.ndarray], np.ndarray], ...] = (
        ("enlarged", enlarge, normals[:BLOCK]),
        ("upside-down", flip_top_to_bottom, normals[:BLOCK]),
        ("rotated", rotate, normals[BLOCK : 2 * BLOCK]),
        ("mirrored", flip_left_to_right, normals[2 * BLOCK :]),
    )
    originals = np.concatenate([rows for _, _, rows in plan])
    total = len(images) + len(originals)
    pixels = np.empty((total, *images.images.shape[1:]), np.uint8)
    pixels[: len(images)] = images.images
    ids, names, position = [images.ids], list(images.files), len(images)
    for number, (word, change, rows) in enumerate(plan, start=1):
        for row in rows:
            pixels[position] = change(images.images[row])
            position += 1
        ids.append((images.ids[rows] + number * first_id).astype(np.int32))
        names.extend(f"{images.files[row]}#{word}" for row in rows)
    return ImageSet(
        images=pixels,
        labels=np.concatenate([images.labels, images.labels[originals]]),
        ids=np.concatenate(ids),
        files=tuple(names),
        groups=(*images.groups, *(images.groups[row] for row in originals)),
        subtypes=(*images.subtypes, *(images.subtypes[row] for row in originals)),
    )


def enlarge(image: UInt8[np.ndarray, "S S"]) -> UInt8[np.ndarray, "S S"]:
    """Returns the central 1/1.3 of `image` at full size, uint8 [S, S]."""
    return _turned(image, degrees=0.0, scale=ENLARGEMENT)


def rotate(image: UInt8[np.ndarray, "S S"]) -> UInt8[np.ndarray, "S S"]:
    """Returns `image` rotated counterclockwise by 20 degrees about its centre, uint8 [S, S], black where it was not."""
    return _turned(image, degrees=ROTATION, scale=1.0)


def flip_top_to_bottom(image: UInt8[np.ndarray, "S S"]) -> UInt8[np.ndarray, "S S"]:
    """Returns `image` upside down, uint8 [S, S]."""
    return image[::-1]


def flip_left_to_right(image: UInt8[np.ndarray, "S S"]) -> UInt8[np.ndarray, "S S"]:
    """Returns `image` mirrored, uint8 [S, S]."""
    return image[:, ::-1]


def _turned(image: np.ndarray, *, degrees: float, scale: float) -> np.ndarray:
    """Returns `image` rotated counterclockwise and scaled about its centre, same size, uint8 [S, S]."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
