"""PNG files for the tests of decoding, as cv2 writes them and as it does not."""

import struct
import zlib

import cv2


def png(image, **options):
    return cv2.imencode(".png", image, **options)[1].tobytes()


def png_header(width, height):
    """A PNG of a huge size, without the pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(data, kind, content):
    """A PNG with one more chunk before its pixels."""
    at = data.index(b"IDAT") - 4
    return data[:at] + _chunk(kind, content) + data[at:]


def exif(orientation, order=">", tag=0x0112, kind=3):
    """A block of EXIF that tells an orientation, behind another entry."""
    entries = struct.pack(f"{order}HHLHH", 0x0100, 3, 1, 40, 0) + struct.pack(
        f"{order}HHLHH", tag, kind, 1, orientation, 0
    )
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return start + struct.pack(f"{order}LH", 8, 2) + entries + bytes(4)
