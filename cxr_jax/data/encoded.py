"""What the headers of encoded images say, read before anything is decoded, and the bounds that they must keep."""

from __future__ import annotations

import struct
import zlib

from cxr_jax.errors import UserError

MAX_BYTES = 64 * 2**20
"""Largest encoded image that is accepted."""

MAX_PIXELS = 100_000_000
"""Largest width times height that is accepted; read from the header, before anything is decoded."""

JPEG_START = b"\xff\xd8"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_JPEG_END = b"\xff\xd9"
# What an animation lacks, OpenCV fills with whatever lies in memory.
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
# SOF0..SOF15 hold the size; 0xC4, 0xC8 and 0xCC share the range but are other segments. 0xF7 is that of JPEG-LS.
_FRAME_HEADERS = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_START_OF_SCAN = 0xDA


def check_bytes(size: int, name: str) -> None:
    """Raise UserError if an encoded image has more than MAX_BYTES."""
    if size > MAX_BYTES:
        raise UserError(f"{name} has {size / 2**20:.0f} MiB; images may have up to {MAX_BYTES // 2**20} MiB")


def check_pixels(width: int, height: int, name: str) -> None:
    """Raise UserError if an image has more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(f"{name} is {width:,} x {height:,} pixels; images may have up to {limit} megapixels")


def jpeg_size(data: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) from the frame header of a JPEG, having checked that the image has an end.

    Raises UserError if it has none: the decoder would fill the missing part with grey.
    """
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


def png_size(data: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) from the header of a PNG; UserError unless all chunks and the end are intact."""
    size, position = None, len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise UserError(f"{name} is a damaged PNG: a checksum does not match")
        if kind == b"IHDR" and length == 13:
            size = struct.unpack_from(">II", data, position + 8)
        if kind in _ANIMATION:
            raise UserError(f"{name} is an animated PNG, but a radiograph is a single image")
        if kind == b"IEND" and size is not None and 0 not in size:
            return size
        position = end + 4
    raise UserError(f"{name} is truncated: the end of the PNG is missing")
