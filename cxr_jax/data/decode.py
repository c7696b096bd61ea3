"""Bytes of a radiograph to a grey array, and the one resize of training and serving."""

from __future__ import annotations

import struct
import zlib
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from cxr_jax.errors import UserError

MAX_BYTES = 64 * 2**20
"""Largest encoded image that is accepted."""

MAX_PIXELS = 100_000_000
"""Largest width times height that is accepted; read from the header, before anything is decoded."""

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")

Resize = Literal["squash", "pad", "crop"]
Interpolation = Literal["area", "linear", "cubic"]

_INTERPOLATIONS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# SOF0..SOF15 hold the size; 0xC4, 0xC8 and 0xCC share the range but are other segments.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


def decode_grey(data: bytes, *, name: str) -> UInt8[np.ndarray, "H W"]:
    """Decode a JPEG or PNG to grey, uint8 [H, W], 0 (black) to 255.

    Colour becomes luma by the weights of ITU-R BT.601. 16-bit images are divided by 257, so that the full range maps
    to the full range. Transparent images are laid over black, the background of a radiograph. The orientation tag of a
    JPEG is obeyed.

    Args:
        data: the encoded image.
        name: what to call the image in an error.

    Raises:
        UserError: too many bytes or pixels, another format, or damaged or truncated data. Truncation is found by the
            missing end of the file's structure, because the decoder would fill the missing part with grey.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"{name} has {len(data) / 2**20:.0f} MiB; images may have up to {MAX_BYTES // 2**20} MiB")
    if data.startswith(_JPEG_START):
        width, height = _jpeg_size(data, name)
        flags = cv2.IMREAD_GRAYSCALE
    elif data.startswith(_PNG_SIGNATURE):
        width, height = _png_size(data, name)
        flags = cv2.IMREAD_UNCHANGED
    else:
        raise UserError(f"{name} is neither a JPEG nor a PNG by its content")
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(f"{name} is {width:,} x {height:,} pixels; images may have up to {limit} megapixels")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{name} is damaged and cannot be decoded")
    return _to_grey_bytes(image)


def to_square(
    image: UInt8[np.ndarray, "H W"],
    size: int,
    resize: Resize = "squash",
    interpolation: Interpolation = "area",
) -> UInt8[np.ndarray, "{size} {size}"]:
    """Return grey `image`, uint8 [H, W], as a square, uint8 [size, size].

    Args:
        image: uint8 [H, W].
        size: side of the square, in pixels.
        resize: `squash` gives up the aspect ratio; `pad` keeps the whole image and adds black bands; `crop` keeps the
            central square.
        interpolation: used along an axis that shrinks; an axis that grows is interpolated linearly.
    """
    height, width = image.shape
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if resize != "pad":
        return _resized(image, size, size, interpolation)
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


def _jpeg_size(data: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) from the frame header of a JPEG, having checked that the image has an end."""
    size, position = None, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker in _FRAME_HEADERS and position + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, position + 5)
            size = (width, height)
        if marker == _START_OF_SCAN:
            if size is None or 0 in size:
                break
            if data.find(_JPEG_END, position) < 0:
                raise UserError(f"{name} is truncated: the end of its image data is missing")
            return size
        position += 2 + length
    raise UserError(f"{name} is a damaged or truncated JPEG: no image data found")


def _png_size(data: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) from the header of a PNG, having checked every chunk and the end."""
    size, position = None, len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise UserError(f"{name} is a damaged PNG: a checksum does not match")
        if kind == b"IHDR" and length == 13:
            size = struct.unpack_from(">II", data, position + 8)
        if kind == b"IEND" and size is not None and 0 not in size:
            return size
        position = end + 4
    raise UserError(f"{name} is truncated: the end of the PNG is missing")
