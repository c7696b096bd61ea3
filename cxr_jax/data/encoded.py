"""What the headers of encoded images say, read before anything is decoded, and the bounds that they must keep."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from cxr_jax.errors import UserError
from cxr_jax.vocabulary import SYNTHETIC_KEYWORD

MAX_BYTES = 64 * 2**20
"""Largest encoded image that is accepted."""

MAX_PIXELS = 100_000_000
"""Largest width times height that is accepted; read from the header, before anything is decoded."""

HEAD_BYTES = 512
"""How much of a file `kind_of` needs to see; less is enough for a shorter file."""

Kind = Literal["JPEG", "PNG", "DICOM"]

JPEG_START = b"\xff\xd8"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
DICOM_PREFIX_AT, DICOM_PREFIX = 128, b"DICM"

# The value representations of PS3.5 6.2; those of the second line have a length of four bytes after two reserved ones.
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_META_GROUP, _IDENTIFYING_GROUP = 0x0002, 0x0008
_LONGEST_FIRST_VALUE = 1024

_JPEG_END = b"\xff\xd9"
# What an animation lacks, OpenCV fills with whatever lies in memory.
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
# a picture program may write a text anew in another of its forms, all of which begin with the keyword
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_SYNTHETIC = SYNTHETIC_KEYWORD.encode() + b"\0"
# SOF0..SOF15 hold the size; 0xC4, 0xC8 and 0xCC share the range but are other segments. 0xF7 is that of JPEG-LS.
_FRAME_HEADERS = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_JPEG_LS = 0xF7
_START_OF_SCAN = 0xDA
_ORIENTATION_TAG, _EXIF_SHORT = 0x0112, 3

UPRIGHT = 1
"""EXIF's orientation of an image that is stored as it is to be shown."""


def kind_of(head: bytes) -> Kind | None:
    """Returns what kind of image file begins with `head`, whatever it is called; None if no kind that is read.

    `head` are the first HEAD_BYTES bytes of the file, or more. Old archives and network dumps hold DICOM files without
    the first 128 bytes and the prefix. These are recognised by their first two elements.
    """
    if head.startswith(JPEG_START):
        return "JPEG"
    if head.startswith(PNG_SIGNATURE):
        return "PNG"
    if head.startswith(DICOM_PREFIX, DICOM_PREFIX_AT) or _begins_with_elements(head):
        return "DICOM"
    return None


def _begins_with_elements(head: bytes) -> bool:
    """Returns True if `head` begins with two DICOM elements in rising order, of file meta or identifying
    information.
    """
    first = _element(head, 0)
    if first is None or first[0] not in (_META_GROUP, _IDENTIFYING_GROUP):
        return False
    group, number, end = first
    second = _element(head, end)
    # The element after the last one of file meta may already be one of the data set.
    return second is not None and (group, number) < second[:2] and second[0] in (group, _IDENTIFYING_GROUP)


def _element(head: bytes, position: int) -> tuple[int, int, int] | None:
    """Returns (group, number, end) of the DICOM element at a position, little endian; None if there is none."""
    if position + 8 > len(head):
        return None
    group, number, vr, short = struct.unpack_from("<HH2sH", head, position)
    if vr in _SHORT_VRS:
        length, start = short, 8
    elif vr in _LONG_VRS and position + 12 <= len(head):
        length, start = struct.unpack_from("<L", head, position + 8)[0], 12
    else:
        length, start = struct.unpack_from("<L", head, position + 4)[0], 8
    if length % 2 or length > _LONGEST_FIRST_VALUE:
        return None
    return group, number, position + start + length


def check_bytes(size: int, name: str) -> None:
    """Raises UserError if an encoded image has more than MAX_BYTES."""
    if size > MAX_BYTES:
        raise UserError(f"{name} has {size / 2**20:.0f} MiB; images may have up to {MAX_BYTES // 2**20} MiB")


def check_pixels(width: int, height: int, name: str) -> None:
    """Raises UserError if an image has more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(f"{name} is {width:,} x {height:,} pixels; images may have up to {limit} megapixels")


@dataclass(frozen=True)
class JpegHeader:
    """What the frame header of a JPEG or JPEG-LS file says (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2)."""

    width: int
    height: int
    bits: int  # of a sample, 2 to 16
    components: int  # 1 for grey, 3 for colour
    marker: int  # what kind of frame it is

    @property
    def jpeg_ls(self) -> bool:
        """True for JPEG-LS, which shares no more than its structure with JPEG."""
        return self.marker == _JPEG_LS

    @property
    def lossless(self) -> bool:
        """True for the lossless kinds of JPEG."""
        return self.marker in _LOSSLESS

    @property
    def plain(self) -> bool:
        """True for a JPEG of 8 bits by the discrete cosine transform, which is what everything decodes."""
        return self.bits == 8 and not self.lossless and not self.jpeg_ls


@dataclass(frozen=True)
class PngHeader:
    """What the chunks of a PNG say of its pixels."""

    width: int
    height: int
    significant_bits: int | None  # of a sample, by the chunk sBIT, where it says the same of all channels
    orientation: int  # EXIF's, 1 (upright) to 8
    synthetic: bool = False  # a text says that a generator made it


def jpeg_header(data: bytes, name: str) -> JpegHeader:
    """Returns what the frame header of a JPEG says, having checked that the image has an end.

    Raises UserError if it has none: the decoder would fill the missing part with grey.
    """
    header, position = None, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker in _FRAME_HEADERS and position + 10 <= len(data):
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            header = JpegHeader(width, height, bits, components, marker)
        if marker == _START_OF_SCAN:
            if header is None or 0 in (header.width, header.height) or not 2 <= header.bits <= 16:
                break
            if data.rfind(_JPEG_END, position) < 0:  # from the end, where it usually is
                raise UserError(f"{name} is truncated: the end of its image data is missing")
            return header
        position += 2 + length
    raise UserError(f"{name} is a damaged or truncated JPEG: no image data found")


def png_header(data: bytes, name: str) -> PngHeader:
    """Returns what the chunks of a PNG say; UserError unless all of them and the end are intact."""
    size, bits, orientation, synthetic, position = None, None, None, False, len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise UserError(f"{name} is a damaged PNG: a checksum does not match")
        if kind == b"IHDR" and length == 13:
            size = struct.unpack_from(">II", data, position + 8)
        if kind == b"sBIT" and length:
            stated = set(data[position + 8 : end])
            bits = stated.pop() if len(stated) == 1 else None
        if kind == b"eXIf" and orientation is None:
            orientation = exif_orientation(data[position + 8 : end])
        if kind in _TEXTS and data[position + 8 : end].startswith(_SYNTHETIC):
            synthetic = True
        if kind in _ANIMATION:
            raise UserError(f"{name} is an animated PNG, but a radiograph is a single image")
        if kind == b"IEND" and size is not None and 0 not in size:
            return PngHeader(*size, bits, orientation or UPRIGHT, synthetic)
        position = end + 4
    raise UserError(f"{name} is truncated: the end of the PNG is missing")


def exif_orientation(block: bytes) -> int:
    """Returns the orientation in a block of EXIF, 1 to 8; `UPRIGHT` if it tells none, or nonsense."""
    block = block.removeprefix(b"Exif\0\0")  # belongs to JPEG alone, and is written elsewhere too
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return UPRIGHT
    start = struct.unpack_from(f"{order}L", block, 4)[0]
    count = struct.unpack_from(f"{order}H", block, start)[0] if start + 2 <= len(block) else 0
    for position in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHLH", block, position)
        if tag == _ORIENTATION_TAG:
            return value if kind == _EXIF_SHORT and UPRIGHT <= value <= 8 else UPRIGHT
    return UPRIGHT
