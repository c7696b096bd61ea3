"""The pixels of one frame as they are stored, whatever way they are encoded in."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cxr_jax.data.dicom.header import DAMAGED, Header
from cxr_jax.data.encoded import jpeg_size
from cxr_jax.errors import UserError

if TYPE_CHECKING:
    from pydicom.uid import UID

MAX_FRAGMENTS = 10_000
"""Into how many pieces an encoded frame may be cut."""

MAX_RUNS = 20_000_000
"""How many runs of RLE are unpacked: some seconds' work, and more than the largest radiographs hold."""

_ITEM, _END_OF_ITEMS, _UNDEFINED = 0xFFFEE000, 0xFFFEE0DD, 0xFFFFFFFF
_CODESTREAM = b"\xff\x4f\xff\x51"


def stored_pixels(value: bytes, syntax: UID, header: Header, name: str) -> np.ndarray:
    """Return the stored values of a frame, (u)int8 or (u)int16 [rows, columns].

    Args:
        value: of the element PixelData.
        syntax: of transfer.
        header: what the file says of its pixels.
        name: what to call the file in an error.

    Raises:
        UserError: the pixels are truncated or damaged, or no decoder for them is installed.
    """
    from pydicom import uid

    if syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian):
        return _native(value, header, name)
    if syntax == uid.RLELossless:
        return _native(_unpack_rle(_frame(value, name), header, name), header, name)
    if syntax in uid.JPEG2000TransferSyntaxes:
        size = _codestream_size
    elif syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes):
        size = jpeg_size
    else:
        stated = f" ({syntax.name})" if syntax.name != syntax else ""
        raise UserError(f"{name} is stored in a way that is not read{stated}: convert it to PNG")
    frame = _frame(value, name)
    # Before any decoder sets memory aside for what the frame itself says.
    if size(frame, name) != (header.columns, header.rows):
        raise UserError(f"{name} {DAMAGED}: its header and its pixels tell two sizes")
    return _baseline(frame, header, name) if syntax == uid.JPEGBaseline8Bit else _plugin(frame, syntax, header, name)


def _native(value: bytes, header: Header, name: str) -> np.ndarray:
    """Return pixels that are not encoded, without the bits above those that are stored."""
    kind = np.dtype(f"<{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    count = header.rows * header.columns
    if len(value) < count * kind.itemsize:
        raise UserError(f"{name} is truncated: the end of its image data is missing")
    pixels = np.frombuffer(value, kind, count).reshape(header.rows, header.columns)
    unused = header.bits_allocated - header.bits_stored
    # Old files keep overlays there; shifting back repeats the sign.
    return (pixels << unused) >> unused if unused else pixels


def _frame(value: bytes, name: str) -> bytes:
    """Return the one encoded frame of encapsulated pixel data (PS3.5 A.4), joined from its fragments."""
    parts, position = [], 0
    while position + 8 <= len(value) and len(parts) <= MAX_FRAGMENTS:
        group, element, length = struct.unpack_from("<HHL", value, position)
        position += 8
        if group << 16 | element != _ITEM or length == _UNDEFINED or position + length > len(value):
            break
        parts.append(value[position : position + length])
        position += length
    # The first item is a table of offsets.
    frame = b"".join(parts[1:]) if len(parts) <= MAX_FRAGMENTS else b""
    if not frame:
        raise UserError(f"{name} {DAMAGED}: it holds no encoded image")
    return frame


def _unpack_rle(frame: bytes, header: Header, name: str) -> bytes:
    """Return the bytes of a frame in RLE (PS3.5 annex G): one segment for each byte of a pixel, the highest first."""
    planes = header.bits_allocated // 8
    count = header.rows * header.columns
    if len(frame) < 64 or (numbers := struct.unpack_from("<16L", frame))[0] != planes:
        raise UserError(f"{name} {DAMAGED}: its RLE header is wrong")
    starts = [*numbers[1 : planes + 1], len(frame)]
    unpacked = np.empty((count, planes), np.uint8)
    for plane in range(planes):
        segment = _unpack_bits(frame[starts[plane] : starts[plane + 1]], count)
        if len(segment) < count:
            raise UserError(f"{name} is truncated: the end of its image data is missing")
        unpacked[:, planes - 1 - plane] = np.frombuffer(segment, np.uint8, count)
    return unpacked.tobytes()


def _unpack_bits(segment: bytes, count: int) -> bytearray:
    """Return `count` unpacked bytes of a PackBits segment, or some more or fewer where it is damaged."""
    unpacked, position, runs = bytearray(), 0, 0
    while position + 1 < len(segment) and len(unpacked) < count and runs < MAX_RUNS:
        length = segment[position]
        if length < 128:
            unpacked += segment[position + 1 : position + 2 + length]
            position += 2 + length
        else:
            # 128 stands for nothing.
            unpacked += segment[position + 1 : position + 2] * (257 - length if length > 128 else 0)
            position += 2 if length > 128 else 1
        runs += 1
    return unpacked


def _codestream_size(frame: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) from the header of a JPEG 2000 codestream."""
    if len(frame) < 24 or not frame.startswith(_CODESTREAM):
        raise UserError(f"{name} is damaged and cannot be decoded")
    right, bottom, left, top = struct.unpack_from(">4L", frame, 8)
    return right - left, bottom - top


def _baseline(frame: bytes, header: Header, name: str) -> np.ndarray:
    """Return the pixels of a JPEG of 8 bits."""
    try:
        pixels = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None or header.bits_allocated != 8:
        raise UserError(f"{name} is damaged and cannot be decoded")
    return pixels.view(np.int8) if header.signed else pixels


def _plugin(frame: bytes, syntax: UID, header: Header, name: str) -> np.ndarray:
    """Return the pixels of a frame by one of the decoders that pydicom knows."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    decoder = get_decoder(syntax)
    plugins = set(decoder.available_plugins)
    if syntax == JPEGExtended12Bit and header.bits_stored > 8:
        # It says that it can, and then cannot.
        plugins -= {"pillow"}
    if not plugins:
        raise UserError(
            f"{name} is compressed as {syntax.name}, and no decoder for that is installed: install one that pydicom "
            "knows, such as pylibjpeg with pylibjpeg-libjpeg and pylibjpeg-openjpeg, or convert the file to PNG"
        )
    try:
        pixels, _ = decoder.as_array(
            encapsulate([frame]),
            raw=True,
            rows=header.rows,
            columns=header.columns,
            number_of_frames=1,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME1" if header.inverted else "MONOCHROME2",
            pixel_representation=int(header.signed),
            bits_allocated=header.bits_allocated,
            bits_stored=header.bits_stored,
            pixel_keyword="PixelData",
        )
    except Exception:  # each decoder has errors of its own
        pixels = None
    expected = np.dtype(f"{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    if pixels is None or pixels.shape != (header.rows, header.columns) or pixels.dtype != expected:
        raise UserError(f"{name} is damaged and cannot be decoded")
    return pixels
