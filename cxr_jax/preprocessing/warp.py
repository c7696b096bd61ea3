"""One bilinear resampling of a grey image, in fixed point.

Coordinates are integers. An image therefore has the same bits in a batch of any size and on any number of devices, in
whatever order the compiler puts floating-point operations.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from cxr_jax.preprocessing.rounding import product

_MATRIX_BITS = 14
"""Binary digits after the point of the inverse matrix; a 2048 px image is then placed to 1/16 px at its corners."""


class Crop(NamedTuple):
    """The part of a picture that is enlarged to the whole; width and height of 1 leave the picture as it is."""

    width: Float[Array, ""]  # share of the picture's width
    height: Float[Array, ""]  # share of the picture's height
    x: Float[Array, ""]  # place within the picture: -1 at its left edge, 0 in the middle, 1 at its right edge
    y: Float[Array, ""]  # -1 at its upper edge, 1 at its lower


def warp(
    image: UInt8[Array, "S S"],
    angle: Float[Array, ""],
    scale: Float[Array, ""],
    shift_x: Float[Array, ""],
    shift_y: Float[Array, ""],
    crop: Crop | None = None,
) -> Float[Array, "S S"]:
    """Cuts out `crop`, rotate (radians, counter-clockwise) and enlarge it about its centre, then shift it (share of S).

    Bilinear with black outside, as OpenCV's `warpAffine` with `BORDER_CONSTANT`; returns float32 `[S, S]` in 0..255.
    It is one resampling of the whole image: what lies outside the crop comes in where rotation or shift uncovers it,
    and black only where they leave the picture.
    """
    size = image.shape[0]
    x, y = _source_coordinates(size, angle, scale, shift_x, shift_y, crop)
    bits = _MATRIX_BITS + 1
    left, top = x >> bits, y >> bits
    right_share, bottom_share = (
        (fixed & (2**bits - 1)).astype(jnp.float32) * jnp.float32(2.0**-bits) for fixed in (x, y)
    )

    def neighbour(rows: Array, columns: Array) -> Array:
        inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        grey = image.at[jnp.clip(rows, 0, size - 1), jnp.clip(columns, 0, size - 1)].get(mode="promise_in_bounds")
        return jnp.where(inside, grey, 0).astype(jnp.float32)

    upper, lower = (
        neighbour(rows, left) + product(right_share, neighbour(rows, left + 1) - neighbour(rows, left))
        for rows in (top, top + 1)
    )
    return upper + product(bottom_share, lower - upper)


def _source_coordinates(
    size: int, angle: Array, scale: Array, shift_x: Array, shift_y: Array, crop: Crop | None
) -> tuple[Array, Array]:
    """Returns where each output pixel comes from: int32 `[S, S]` x and y, in units of 2^-(_MATRIX_BITS + 1) pixels.

    With floating point, the compiler may compute a coordinate twice, once for its whole part and once for the rest,
    and round the two differently: a pixel on a boundary would then take the wrong neighbour.
    """
    cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale

    def fixed(value: Array) -> Array:
        return jnp.round(value * 2.0**_MATRIX_BITS).astype(jnp.int32)

    # Twice the distance from the centre is a whole number for even and odd sizes.
    distance = 2 * jnp.arange(size, dtype=jnp.int32) - (size - 1)

    def coordinate(
        of_x: Array, of_y: Array, shift: Array, extent: Array | None = None, place: Array | None = None
    ) -> Array:
        centre = jnp.int32((size - 1) << _MATRIX_BITS)
        if extent is not None:
            # The outermost pixels' centres stay inside the picture: a crop without rotation shows no black border.
            centre = centre + fixed((size - 1) * (1 - extent) * place)
            of_x, of_y, shift = extent * of_x, extent * of_y, extent * shift
        offset = centre - fixed(2 * size * shift)
        return (fixed(of_x) * distance)[None, :] + (fixed(of_y) * distance)[:, None] + offset

    along_x, along_y = (crop.width, crop.x) if crop else (), (crop.height, crop.y) if crop else ()
    x = coordinate(cosine, -sine, product(cosine, shift_x) - product(sine, shift_y), *along_x)
    y = coordinate(sine, cosine, product(sine, shift_x) + product(cosine, shift_y), *along_y)
    return x, y
