"""Bytes of a radiograph to a grey array, and the one resize of training and serving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from cxr_jax.data.dicom import decode_dicom, is_dicom
from cxr_jax.data.encoded import JPEG_START, PNG_SIGNATURE, check_bytes, check_pixels, jpeg_size, png_size
from cxr_jax.errors import UserError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".dcm", ".dicom")

Resize = Literal["squash", "pad", "crop"]
Interpolation = Literal["area", "linear", "cubic"]

_INTERPOLATIONS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


DECODING = 2
"""Version of the way from a file to its pixels; what was decoded in another way is not mixed with it."""

_REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""How OpenCV is told to decode a JPEG at a fraction of its size, by what its sides are divided by."""


def decode_square(
    data: bytes,
    size: int,
    resize: Resize = "squash",
    interpolation: Interpolation = "area",
    *,
    name: str,
) -> UInt8[np.ndarray, "{size} {size}"]:
    """Decode a JPEG, PNG or DICOM file to the square that a network sees, uint8 [size, size]: in training and after it.

    It is `to_square` of `decode_grey`, but a JPEG of more than four times the size wanted is decoded at a half, a
    quarter or an eighth of its own: the decoder then averages within its blocks, which costs a fraction of the time,
    and at least twice the size wanted is left for `to_square` to average. On original radiographs of about 1350 x 1000
    pixels the squares of 224 differ from those of the whole image by 0.2 grey levels on average.

    Raises:
        UserError: as `decode_grey`.
    """
    image, shape = _decode(data, name, at_least=2 * size, of=max if resize == "pad" else min)
    return to_square(image, size, resize, interpolation, shape=shape)


def decode_grey(data: bytes, *, name: str) -> UInt8[np.ndarray, "H W"]:
    """Decode a JPEG, PNG or DICOM file to grey, uint8 [H, W], 0 (black) to 255.

    Colour becomes luma by the weights of ITU-R BT.601. 16-bit images are divided by 257, so that the full range maps
    to the full range. Transparent images are laid over black, the background of a radiograph. The orientation tag of a
    JPEG is obeyed. DICOM files are shown as they ask to be (see `data.dicom`).

    Args:
        data: the encoded image.
        name: what to call the image in an error.

    Raises:
        UserError: too many bytes or pixels, another format, or damaged or truncated data. Truncation is found by the
            missing end of the file's structure, because the decoder would fill the missing part with grey.
    """
    return _decode(data, name)[0]


def _decode(
    data: bytes, name: str, at_least: int | None = None, of: Callable[[int, int], int] = min
) -> tuple[UInt8[np.ndarray, "H W"], tuple[int, int]]:
    """Return what `decode_grey` does, or a JPEG made smaller, the side that `of` picks still `at_least` so long.

    Beside it its height and width before it was made smaller.
    """
    check_bytes(len(data), name)
    if data.startswith(JPEG_START):
        width, height = jpeg_size(data, name)
        flags = _REDUCED[1 if at_least is None else _reduction(of(width, height), at_least)]
    elif data.startswith(PNG_SIGNATURE):
        width, height = png_size(data, name)
        flags = cv2.IMREAD_UNCHANGED
    elif is_dicom(data):
        image = decode_dicom(data, name)
        return image, image.shape
    else:
        raise UserError(f"{name} is no JPEG, PNG or DICOM file by its content")
    check_pixels(width, height, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{name} is damaged and cannot be decoded")
    # the header's size, turned as the decoder turned the image
    shape = (height, width) if (height > width) == (image.shape[0] > image.shape[1]) else (width, height)
    return _to_grey_bytes(image), shape


def _reduction(side: int, at_least: int) -> int:
    """What a JPEG's sides may be divided by so that `side` pixels stay `at_least` as many."""
    return max(divisor for divisor in _REDUCED if divisor == 1 or side // divisor >= at_least)


def without_header(data: bytes, *, name: str) -> bytes:
    """Return `data` as records keep it: unchanged, or for a DICOM file the PNG of what `decode_grey` makes of it.

    What the header of a DICOM file tells of a patient is gone then, and the decoded image is the same.

    Raises:
        UserError: as `decode_grey` for a DICOM file.
    """
    if not is_dicom(data):
        return data
    return cv2.imencode(".png", decode_grey(data, name=name))[1].tobytes()


def to_square(
    image: UInt8[np.ndarray, "H W"],
    size: int,
    resize: Resize = "squash",
    interpolation: Interpolation = "area",
    *,
    shape: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "{size} {size}"]:
    """Return grey `image`, uint8 [H, W], as a square, uint8 [size, size].

    Args:
        image: uint8 [H, W].
        size: side of the square, in pixels.
        resize: `squash` gives up the aspect ratio; `pad` keeps the whole image and adds black bands; `crop` keeps the
            central square.
        interpolation: used along an axis that shrinks; an axis that grows is interpolated linearly.
        shape: height and width whose aspect ratio counts, where `image` is a smaller copy that was rounded to pixels.
    """
    height, width = image.shape
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if resize != "pad":
        return _resized(image, size, size, interpolation)
    height, width = shape or image.shape
    scale = size / max(height, width)
    inner_height, inner_width = (max(1, round(side * scale)) for side in (height, width))
    square = np.zeros((size, size), np.uint8)
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    inner = _resized(image, inner_height, inner_width, interpolation)
    square[top : top + inner_height, left : left + inner_width] = inner
    return square


def _resized(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """Return uint8 [H, W] resized to [height, width]: axes that shrink first, then axes that grow."""
    smaller = (min(image.shape[1], width), min(image.shape[0], height))
    image = cv2.resize(image, smaller, interpolation=_INTERPOLATIONS[interpolation])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _to_grey_bytes(image: np.ndarray) -> np.ndarray:
    """Return what the decoder gave, [H, W] or [H, W, 3 or 4] of 8 or 16 bits, as uint8 [H, W]."""
    if image.ndim == 3:
        alpha = image[..., 3] if image.shape[2] == 4 else None
        highest = np.iinfo(image.dtype).max
        image = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2GRAY)
        if alpha is not None:
            image = np.rint(image * (alpha / highest)).astype(image.dtype)
    if image.dtype == np.uint16:
        # The largest 16-bit value is exactly 257 times the largest 8-bit one; adding 128 rounds.
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return image
