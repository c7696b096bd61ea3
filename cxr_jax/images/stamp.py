"""The mark of images that a generator made: drawn into their pixels, and written into their file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

from cxr_jax import __version__
from cxr_jax.vocabulary import SYNTHETIC_KEYWORD, SYNTHETIC_TEXT

_DRAWN = "SYNTHETIC"
_SHOWN_SIDE = 128
"""Side to which a smaller image is enlarged, so that the mark can be read."""
_FONT, _SCALE, _HEIGHT = cv2.FONT_HERSHEY_SIMPLEX, 0.45, 16
_END_CHUNK = 12


def with_stamp(image: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H2 W2"]:
    """Returns an image with the mark in its lower left corner, at 128 pixels a side at least, enlarged linearly."""
    factor = max(1, -(-_SHOWN_SIDE // min(image.shape)))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    shown = image.copy() if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    _draw(shown, _DRAWN, 0, len(shown) - _HEIGHT)
    return shown


def grid_of(images: UInt8[np.ndarray, "N S S"], columns: int, line: str) -> UInt8[np.ndarray, "H W"]:
    """Returns the images side by side, at 64 pixels at least, below a `line` that says what they are.

    `images` fill the rows from the left; a place that is left is black.
    """
    count, side = len(images), images.shape[1]
    factor = max(1, -(-64 // side))
    rows = -(-count // columns)
    tiles = np.zeros((rows * columns, side * factor, side * factor), np.uint8)
    tiles[:count] = images.repeat(factor, axis=1).repeat(factor, axis=2)
    side *= factor
    sheet = tiles.reshape(rows, columns, side, side).transpose(0, 2, 1, 3).reshape(rows * side, columns * side)
    sheet = np.concatenate([np.zeros((_HEIGHT, sheet.shape[1]), np.uint8), sheet])
    _draw(sheet, line, 0, 0)
    return sheet


def marked_png(image: UInt8[np.ndarray, "H W"], facts: Mapping[str, str]) -> bytes:
    """Returns a PNG of `image` whose text says that it is synthetic, which program wrote it, and the `facts`."""
    plain = cv2.imencode(".png", image)[1].tobytes()
    texts = {SYNTHETIC_KEYWORD: SYNTHETIC_TEXT, "Software": f"cxr_jax {__version__}", **facts}
    chunks = b"".join(_text_chunk(keyword, text) for keyword, text in texts.items())
    return plain[:-_END_CHUNK] + chunks + plain[-_END_CHUNK:]


def _text_chunk(keyword: str, text: str) -> bytes:
    body = b"tEXt" + keyword.encode("latin-1") + b"\0" + text.encode("latin-1", "replace")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _draw(image: np.ndarray, text: str, left: int, top: int) -> None:
    """Draws white text on a black box into `image`, in place."""
    width = cv2.getTextSize(text, _FONT, _SCALE, 1)[0][0] + 8
    cv2.rectangle(image, (left, top), (left + width, top + _HEIGHT - 1), 0, cv2.FILLED)
    cv2.putText(image, text, (left + 4, top + _HEIGHT - 4), _FONT, _SCALE, 255, 1, cv2.LINE_AA)
