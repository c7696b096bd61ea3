"""Histogram equalisation, of a whole image and of its tiles (CLAHE), as OpenCV defines them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, UInt8

from cxr_jax.preprocessing.normalise import GREY_RANGE
from cxr_jax.preprocessing.rounding import product

_LEVELS = 256
_TILES = 8
"""Tiles of CLAHE along each side."""
_CLIP_LIMIT = 2.0
"""Highest bar of a tile's histogram, in mean bars."""


def equalise(image: UInt8[Array, "S S"]) -> UInt8[Array, "S S"]:
    """Spreads grey levels so that their histogram is as flat as it can be: OpenCV's `equalizeHist`, bit for bit."""
    histogram = _histograms(image, jnp.zeros(image.shape, jnp.int32), 1)[0]
    first = histogram[jnp.argmax(histogram > 0)]
    scale = jnp.float32(GREY_RANGE) / jnp.maximum(image.size - first, 1).astype(jnp.float32)
    below = (jnp.cumsum(histogram) - first).astype(jnp.float32)
    levels = jnp.round(below * scale).astype(jnp.uint8)
    # An image of one grey level stays as it is.
    return jnp.where(first == image.size, image, _look_up(levels, image.astype(jnp.int32)))


def equalise_adaptively(image: UInt8[Array, "S S"]) -> UInt8[Array, "S S"]:
    """Returns contrast-limited adaptive histogram equalisation, as OpenCV's `createCLAHE(clipLimit=2.0,
    tileGridSize=(8, 8))`.

    Each of the 8 x 8 tiles is equalised by its own histogram, whose bars are cut off and spread over all levels, and
    a pixel's result is interpolated between the four tiles around it (Zuiderveld, Graphics Gems IV, 1994). A side
    that is no multiple of 8 is first extended to the right and below by reflection, as OpenCV does, so that the result
    is OpenCV's bit for bit at every side of 16 pixels or more.
    """
    size = image.shape[0]
    extended = size if size % _TILES == 0 else size + _TILES - size % _TILES
    tile = extended // _TILES
    padded = jnp.pad(image, (0, extended - size), mode="reflect")
    tile_of = np.arange(extended) // tile
    numbers = jnp.asarray(tile_of[:, None] * _TILES + tile_of[None, :], jnp.int32)
    histograms = _clip(_histograms(padded, numbers, _TILES**2), max(int(_CLIP_LIMIT * tile * tile / _LEVELS), 1))
    scale = jnp.float32(np.float32(GREY_RANGE) / np.float32(tile * tile))
    sums = jnp.cumsum(histograms, axis=1).astype(jnp.float32)
    levels = jnp.round(jnp.clip(sums * scale, 0.0, GREY_RANGE)).astype(jnp.uint32).reshape(_TILES, _TILES, _LEVELS)
    return _interpolate(image, levels, tile)


def _histograms(image: UInt8[Array, "S S"], numbers: Int32[Array, "S S"], count: int) -> Int32[Array, "count levels"]:
    """Returns how often each grey level occurs among the pixels of each number from 0 to `count` - 1."""
    places = (numbers * _LEVELS + image.astype(jnp.int32)).reshape(-1)
    return jnp.zeros(count * _LEVELS, jnp.int32).at[places].add(1, mode="promise_in_bounds").reshape(count, _LEVELS)


def _clip(histograms: Int32[Array, "N levels"], limit: int) -> Int32[Array, "N levels"]:
    """Cuts bars off at `limit` and spread what was above it over all levels, the remainder in equal steps."""
    excess = jnp.sum(jnp.maximum(histograms - limit, 0), axis=1, keepdims=True, dtype=jnp.int32)
    share, remainder = excess // _LEVELS, excess % _LEVELS
    step = jnp.maximum(_LEVELS // jnp.maximum(remainder, 1), 1)
    level = jnp.arange(_LEVELS, dtype=jnp.int32)[None, :]
    one_more = (level % step == 0) & (level // step < remainder)
    return jnp.minimum(histograms, limit) + share + one_more.astype(jnp.int32)


def _interpolate(image: UInt8[Array, "S S"], levels: Array, tile: int) -> UInt8[Array, "S S"]:
    """Returns each pixel through the tables `levels`, `[tiles, tiles, 256]` uint32, of the four tiles nearest to it."""
    # A pixel lies in one of 9 x 9 cells, between the centres of four tiles, two or one of them at the border. Their
    # four new grey levels stand in the four bytes of one number, so that a pixel needs one look-up.
    before = np.clip(np.arange(_TILES + 1) - 1, 0, None)
    after = np.clip(np.arange(_TILES + 1), None, _TILES - 1)
    upper, lower = levels[before], levels[after]
    four = upper[:, before] | upper[:, after] << 8 | lower[:, before] << 16 | lower[:, after] << 24
    # As in OpenCV, a pixel stands at its upper left corner.
    place = np.arange(image.shape[0], dtype=np.float32) * (np.float32(1) / np.float32(tile)) - np.float32(0.5)
    cell = np.floor(place).astype(np.int32)
    share = place - cell.astype(np.float32)
    numbers = ((cell[:, None] + 1) * (_TILES + 1) + cell[None, :] + 1) * _LEVELS
    packed = _look_up(four.reshape(-1), jnp.asarray(numbers) + image.astype(jnp.int32))
    across, down = jnp.asarray(share)[None, :], jnp.asarray(share)[:, None]

    def between(first_byte: int) -> Array:
        left, right = ((packed >> byte & 255).astype(jnp.float32) for byte in (first_byte, first_byte + 8))
        return product(left, 1 - across) + product(right, across)

    return jnp.round(product(between(0), 1 - down) + product(between(16), down)).astype(jnp.uint8)


def _look_up(table: Array, places: Int[Array, "S S"]) -> Array:
    """Returns `table[places]`, without checking bounds."""
    return table.at[places].get(mode="promise_in_bounds")
