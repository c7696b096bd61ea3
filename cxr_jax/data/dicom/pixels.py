"""The pixels of one frame as words of all the bits that are allocated, whatever way they are encoded in."""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cxr_jax.data.dicom.header import DAMAGED, NATIVE, Header
from cxr_jax.data.dicom.streams import Stream, jpeg_2000_stream, jpeg_stream
from cxr_jax.errors import UserError

if TYPE_CHECKING:
    from pydicom.uid import UID

MAX_FRAGMENTS = 10_000
"""Into how many pieces an encoded frame may be cut."""

MAX_RUNS = 20_000_000
"""How many runs of RLE are unpacked: some seconds' work, and more than the largest radiographs hold."""


def stored_words(value: bytes, syntax: UID, header: Header, name: str) -> np.ndarray:
    """Returns the words of a frame, uint8 or uint16 [rows, columns], of which `header` says which bits are pixels.

    Args:
        value: of the element PixelData.
        syntax: of transfer.
        header: what the file says of its pixels.
        name: what to call the file in an error.

    Raises:
        UserError: the pixels are truncated or damaged, or no decoder for them is installed.
    """
    from pydicom import uid

    if syntax in NATIVE:
        return _native(value, header, name)
    if syntax == uid.RLELossless:
        return _native(_unpack_rle(_frame(value, name), header, name), header, name)
    if syntax in _jpeg_2000():
        read = jpeg_2000_stream
    elif syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes):
        read = jpeg_stream
    else:
        stated = f" ({syntax.name})" if syntax.name != syntax else ""
        raise UserError(f"{name} is stored in a way that is not read{stated}: convert it to PNG")
    stream = read(_frame(value, name), name)
    # Before any decoder sets memory aside for what the frame itself says.
    if (stream.width, stream.height) != (header.columns, header.rows):
        raise UserError(f"{name} {DAMAGED}: its header and its pixels tell two sizes")
    if stream.bits > header.bits_allocated:
        raise UserError(f"{name} {DAMAGED}: its pixels take more bits than its header says")
    if stream.plain and header.bits_stored > stream.bits:
        raise UserError(f"{name} {DAMAGED}: its pixels take fewer bits than its header says")
    pixels = _decoded(stream, syntax, name)
    if stream.signed and not header.signed and pixels.min() < 0:
        raise UserError(f"{name} {DAMAGED}: it has negative pixels, and its header says that it has none")
    if stream.signed == header.signed and syntax in (uid.JPEGExtended12Bit, uid.JPEG2000, uid.HTJ2K):
        # what is lossy may go a little beyond the values that are stored, which must not turn white into black
        lowest = -(2 ** (header.bits_stored - 1)) if header.signed else 0
        pixels = np.clip(pixels, lowest, lowest + 2**header.bits_stored - 1)
    # other streams than those of JPEG 2000 never tell that pixels are signed: they hold the bits of negative numbers
    return pixels.astype(f"u{header.bits_allocated // 8}") << (header.high_bit + 1 - header.bits_stored)


def _jpeg_2000() -> tuple[UID, ...]:
    """Returns the transfer syntaxes of JPEG 2000, without those of several components."""
    from pydicom import uid

    return uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K


def _native(value: bytes, header: Header, name: str) -> np.ndarray:
    """Returns pixels that are not encoded."""
    kind = np.dtype(f"<u{header.bits_allocated // 8}")
    count = header.rows * header.columns
    if len(value) < count * kind.itemsize:
        raise UserError(f"{name} is truncated: the end of its image data is missing")
    return np.frombuffer(value, kind, count).reshape(header.rows, header.columns)


def _frame(value: bytes, name: str) -> bytes:
    """Returns the one encoded frame of encapsulated pixel data (PS3.5 A.4), joined from its fragments."""
    from pydicom.encaps import generate_fragments

    try:
        # the first item is a table of offsets
        _, *parts = itertools.islice(generate_fragments(value), MAX_FRAGMENTS + 1)
    except ValueError:
        parts = []
    if not any(parts) or len(parts) == MAX_FRAGMENTS:
        raise UserError(f"{name} {DAMAGED}: it holds no encoded image")
    return b"".join(parts)


def _unpack_rle(frame: bytes, header: Header, name: str) -> bytes:
    """Returns the bytes of a frame in RLE (PS3.5 annex G): one segment for each byte of a pixel, the highest first."""
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
    """Returns `count` unpacked bytes of a PackBits segment, or some more or fewer where it is damaged."""
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


def _decoded(stream: Stream, syntax: UID, name: str) -> np.ndarray:
    """Returns the pixels of a stream, (u)int8 or (u)int16 [H, W]; UserError if it is damaged or nothing decodes it."""
    pixels = _plain_jpeg(stream) if stream.plain else _plugin(stream, syntax, name)
    expected = np.dtype(f"{'i' if stream.signed else 'u'}{1 if stream.bits <= 8 else 2}")
    if pixels is None or pixels.shape != (stream.height, stream.width) or pixels.dtype != expected:
        raise UserError(f"{name} is damaged and cannot be decoded")
    return pixels


def _plain_jpeg(stream: Stream) -> np.ndarray | None:
    """Returns the pixels of a JPEG of 8 bits, decoded like every other JPEG; None if it is damaged."""
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(np.frombuffer(stream.data, np.uint8), flags)
    except cv2.error:
        return None


def _plugin(stream: Stream, syntax: UID, name: str) -> np.ndarray | None:
    """Returns the pixels of a stream by a decoder that pydicom knows; None if it is damaged.

    The decoders are asked in a fixed order. Each is told what the stream itself says of its samples, because they
    disagree about headers that say something else.
    """
    from pydicom import uid
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    if syntax in _jpeg_2000():
        ways = [(syntax, "pylibjpeg"), (syntax, "pillow")]
    elif syntax in uid.JPEGLSTransferSyntaxes:
        ways = [(syntax, "pyjpegls"), (syntax, "gdcm"), (syntax, "pylibjpeg")]
    else:
        # GDCM decodes 12 bits of JPEG Extended too, and pydicom asks it to under the name of the lossless kind alone
        ways = [(uid.JPEGLossless, "gdcm"), (syntax, "pylibjpeg")]
    for known_as, plugin in ways:
        decoder = get_decoder(known_as)
        if plugin in decoder.available_plugins:
            break
    else:
        raise UserError(
            f"{name} is compressed as {syntax.name}, and no decoder for that is installed: "
            "pip install 'cxr-jax[dicom]', or convert the file to PNG"
        )
    try:
        return decoder.as_array(
            encapsulate([stream.data]),
            raw=True,
            decoding_plugin=plugin,
            rows=stream.height,
            columns=stream.width,
            number_of_frames=1,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            pixel_representation=int(stream.signed),
            bits_allocated=8 if stream.bits <= 8 else 16,
            bits_stored=stream.bits,
            pixel_keyword="PixelData",
        )[0]
    except Exception:  # each decoder has errors of its own
        return None
