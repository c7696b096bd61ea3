"""What an encoded frame says of itself, read before any decoder sees it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cxr_jax.data.encoded import jpeg_header
from cxr_jax.errors import UserError

_CODESTREAM, _END_OF_CODESTREAM = b"\xff\x4f\xff\x51", b"\xff\xd9"
_JP2, _JP2_CODESTREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"jp2c"
_MAX_BOXES = 1000
_SIZE_SEGMENT = struct.Struct(">8L H BBB")  # XY size, offset, tile size, tile offset; components; depth, XY distance


@dataclass(frozen=True)
class Stream:
    """One grey image in JPEG, JPEG-LS or JPEG 2000, without what is wrapped around it."""

    data: bytes
    width: int
    height: int
    bits: int  # of a sample, 1 to 16
    signed: bool
    plain: bool  # a JPEG of 8 bits, as everything decodes it


def jpeg_stream(frame: bytes, name: str) -> Stream:
    """Returns the stream of a frame in JPEG or JPEG-LS; UserError if it is damaged or truncated."""
    header = jpeg_header(frame, name)
    return Stream(frame, header.width, header.height, header.bits, signed=False, plain=header.plain)


def jpeg_2000_stream(frame: bytes, name: str) -> Stream:
    """Returns the codestream of a frame in JPEG 2000; UserError if it is damaged.

    Some writers wrap it in the boxes of a JP2 file. Some add bytes after its end, which decoders would read as a part
    of an open tile.
    """
    data = _unwrapped(frame)
    end = data.rfind(_END_OF_CODESTREAM)
    data = data[: end + len(_END_OF_CODESTREAM)] if end >= 0 else data
    if len(data) < 8 + _SIZE_SEGMENT.size or not data.startswith(_CODESTREAM):
        raise UserError(f"{name} is damaged and cannot be decoded")
    right, bottom, left, top, *_, components, depth, across, down = _SIZE_SEGMENT.unpack_from(data, 8)
    bits, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    if components != 1 or bits > 16 or (across, down) != (1, 1):
        raise UserError(f"{name} is damaged and cannot be decoded")
    return Stream(data, right - left, bottom - top, bits, signed, plain=False)


def _unwrapped(frame: bytes) -> bytes:
    """Returns the codestream in the boxes of a JP2 file (ISO 15444-1 annex I), or what is no such file as it is."""
    if not frame.startswith(_JP2):
        return frame
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > len(frame):
            break
        length, kind = struct.unpack_from(">L4s", frame, position)
        start = position + 8
        if length == 1 and start + 8 <= len(frame):
            length, start = struct.unpack_from(">Q", frame, start)[0], start + 8
        end = position + length if length else len(frame)
        if kind == _JP2_CODESTREAM:
            return frame[start:end]
        if end < start:
            break
        position = end
    return frame
