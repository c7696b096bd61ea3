"""What the structure of a file gives away before anything is decoded."""

import struct
import zlib

import pytest

from cxr_jax.data.decode import decode_grey
from cxr_jax.errors import UserError


def png(*chunks, pixels=bytes(5 * 9)):
    """A grey PNG of 8 x 5 pixels with further chunks before its pixels."""
    header = struct.pack(">LLBBBBB", 8, 5, 8, 0, 0, 0, 0)
    named = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))
        for name, content in named
    )


@pytest.mark.parametrize("missing", [1, 9, 45])
def test_pixels_that_are_missing_inside_of_an_intact_file(missing):
    assert decode_grey(png(), name="a").shape == (5, 8)
    with pytest.raises(UserError, match="is damaged and cannot be decoded"):
        decode_grey(png(pixels=bytes(45 - missing)), name="a")


def test_an_animated_png_is_no_radiograph():
    # OpenCV would fill what an animation lacks with whatever lies in memory.
    frame = (b"fcTL", struct.pack(">LLLLLHHBB", 0, 8, 5, 0, 0, 1, 1, 0, 0))
    for chunks in ([(b"acTL", struct.pack(">LL", 1, 0)), frame], [frame], [(b"acTL", bytes(8))]):
        with pytest.raises(UserError, match="a is an animated PNG, but a radiograph is a single image"):
            decode_grey(png(*chunks, pixels=b""), name="a")
