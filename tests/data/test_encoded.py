"""What the structure of a file gives away before anything is decoded."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from cxr_jax.data.decode import decode_grey
from cxr_jax.data.encoded import HEAD_BYTES, kind_of
from cxr_jax.errors import UserError

from .dicom.drawn import dicom


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


def test_the_kind_is_told_by_content():
    image = np.zeros((9, 9), np.uint8)
    film = dicom(image.astype("<u2"))
    whole = {
        "JPEG": cv2.imencode(".jpg", image)[1].tobytes(),
        "PNG": cv2.imencode(".png", image)[1].tobytes(),
        "DICOM": film,
    }
    for kind, data in whole.items():
        assert kind_of(data) == kind_of(data[:HEAD_BYTES]) == kind
    from_meta = film[132:]
    data_set = film[film.index(struct.pack("<HH2s", 8, 0x16, b"UI")) :]
    implicit = dicom(image.astype("<u2"), "1.2.840.10008.1.2")
    bare = implicit[implicit.index(struct.pack("<HHL", 8, 0x16, 28)) :]
    for data in (from_meta, data_set, bare):
        assert kind_of(data[:HEAD_BYTES]) == "DICOM"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"dear diary, I took a radiograph",
        bytes(HEAD_BYTES),
        b"\x08\x00" * 256,
        b"\x02\x00\x00\x00UL\x04\x00",
        b"GIF89a" + bytes(300),
        b"BM" + bytes(300),
        b"II*\x00\x08\x00\x00\x00" + bytes(300),
        b"RIFF\x08\x00\x00\x00WEBPVP8 " + bytes(300),
        b"PK\x03\x04\x14\x00\x08\x00" + bytes(300),
        b"\x7fELF\x02\x01\x01\x00" + bytes(300),
        b"\x5c\x01\x00\x00" + bytes(344),  # the header of a NIfTI file
    ],
)
def test_other_files_are_of_no_kind(head):
    assert kind_of(head) is None
