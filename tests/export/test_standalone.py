"""The program in a bundle reads a file as this package does, without it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.bundle.starter import STARTER
from cxr_jax.data.decode import decode_square
from cxr_jax.export import standalone
from tests.data.png_files import exif, png, with_chunk

FILM = np.random.default_rng(0).integers(0, 256, (90, 70)).astype(np.uint8)
BORDERED = np.where(np.arange(70) < 3, 0, FILM).astype(np.uint16) * 257
"""A film of 16 bits with three black columns at the left."""
COLOUR = np.stack([FILM, FILM // 2, FILM // 3], -1)
ALPHA = np.concatenate([COLOUR, FILM[::-1, :, None]], -1)

FILES = {
    "grey": png(FILM),
    "colour": png(COLOUR),
    "transparent": png(ALPHA),
    "deep": png(BORDERED),
    "deep colour": png(COLOUR.astype(np.uint16) * 257),
    "deep and transparent": png(ALPHA.astype(np.uint16) * 257),
    "12 bits": png(BORDERED >> 4),
    "14 bits": with_chunk(png(BORDERED >> 2), b"sBIT", b"\x0e"),
    "14 bits stated and exceeded": with_chunk(png(BORDERED), b"sBIT", b"\x0e"),
    "JPEG": cv2.imencode(".jpg", FILM)[1].tobytes(),
    **{f"turned {turn}": with_chunk(png(BORDERED), b"eXIf", exif(turn)) for turn in range(10)},
}


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("file", FILES)
def test_the_squares_are_those_of_this_package(file, resize):
    read = standalone.grey_of(FILES[file], 32, resize)
    square = standalone.to_square(*read, 32, resize, "area")
    np.testing.assert_array_equal(square, decode_square(FILES[file], 32, resize, name=file))


def test_the_starter_network_has_this_program():
    assert (STARTER / "predict.py").read_bytes() == Path(standalone.__file__).read_bytes()
