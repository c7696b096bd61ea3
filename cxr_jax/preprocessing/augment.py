"""Random changes of training images, drawn per example and applied inside the compiled step.

Which changes exist at all is decided when the step is traced, from the frozen configuration: a change that is off
costs nothing. Coordinates are integers in fixed point, so that an image comes out bit for bit the same in a batch of
any size, on any number of devices, however the compiler orders its floating-point operations.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt8

from cxr_jax.config.schema import AugmentationConfig
from cxr_jax.preprocessing.normalise import GREY_RANGE

_MATRIX_BITS = 14
"""Binary digits after the point of the inverse matrix; a 2048 px image is then placed to 1/32 px at its corners."""


class Draw(NamedTuple):
    """What chance decided for one image; a change that is off has its neutral value."""

    horizontal_flip: Bool[Array, ""]
    vertical_flip: Bool[Array, ""]
    angle: Float[Array, ""]  # radians, counter-clockwise
    scale: Float[Array, ""]  # above 1 enlarges
    shift_x: Float[Array, ""]  # share of the side, to the right
    shift_y: Float[Array, ""]  # share of the side, downwards
    brightness: Float[Array, ""]  # grey levels added
    contrast: Float[Array, ""]  # factor about the image's mean
    gamma: Float[Array, ""]  # exponent


def draw(key: Key[Array, ""], config: AugmentationConfig) -> Draw:
    """Draw the changes of one image from its key.

    Angles, shifts and brightness are uniform; factors are uniform on the logarithm, so that doubling is as likely as
    halving. Every change has its own number, so that switching one on does not change what the others draw.
    """
    uniform = jax.random.uniform(key, (len(Draw._fields),), jnp.float32)
    signed = 2 * uniform - 1

    def factor(strength: float, index: int) -> Float[Array, ""]:
        return jnp.exp(signed[index] * jnp.log1p(jnp.float32(strength)))

    return Draw(
        horizontal_flip=uniform[0] < config.horizontal_flip,
        vertical_flip=uniform[1] < config.vertical_flip,
        angle=signed[2] * jnp.deg2rad(jnp.float32(config.rotation)),
        scale=factor(config.scale, 3),
        shift_x=signed[4] * config.translation,
        shift_y=signed[5] * config.translation,
        brightness=signed[6] * config.brightness * GREY_RANGE,
        contrast=factor(config.contrast, 7),
        gamma=factor(config.gamma, 8),
    )


@functools.partial(jax.jit, static_argnames="config")
def augment(images: UInt8[Array, "B S S"], keys: Key[Array, " B"], config: AugmentationConfig) -> Float[Array, "B S S"]:
    """Change each image `[B, S, S]` uint8 at random by its own key; returns float32 `[B, S, S]` in 0..255.

    In this order: flips; rotation, scale and translation as one bilinear resampling, black (0) outside; contrast about
    the mean of the image as it came in; brightness; clipping to 0..255; gamma. The result of an example depends on its
    image, its key and `config` alone. With nothing on, the grey levels come back unchanged.
    """
    if not config.is_random:
        return images.astype(jnp.float32)
    return jax.vmap(functools.partial(_augment_one, config=config))(images, keys)


def _augment_one(image: UInt8[Array, "S S"], key: Key[Array, ""], config: AugmentationConfig) -> Float[Array, "S S"]:
    """`augment` for one image."""
    drawn = draw(key, config)
    if config.horizontal_flip > 0:
        image = jnp.where(drawn.horizontal_flip, image[:, ::-1], image)
    if config.vertical_flip > 0:
        image = jnp.where(drawn.vertical_flip, image[::-1, :], image)
    if config.rotation > 0 or config.scale > 0 or config.translation > 0:
        changed = warp(image, drawn.angle, drawn.scale, drawn.shift_x, drawn.shift_y)
    else:
        changed = image.astype(jnp.float32)
    if config.contrast > 0:
        changed = adjust_contrast(changed, drawn.contrast, mean_grey(image))
    if config.brightness > 0:
        changed = changed + drawn.brightness
    if config.contrast > 0 or config.brightness > 0:
        changed = jnp.clip(changed, 0.0, GREY_RANGE)
    if config.gamma > 0:
        changed = adjust_gamma(changed, drawn.gamma)
    return changed


def warp(
    image: UInt8[Array, "S S"],
    angle: Float[Array, ""],
    scale: Float[Array, ""],
    shift_x: Float[Array, ""],
    shift_y: Float[Array, ""],
) -> Float[Array, "S S"]:
    """Rotate (radians, counter-clockwise) and enlarge an image about its centre, then shift it (share of the side).

    Bilinear with black outside, as OpenCV's `warpAffine` with `BORDER_CONSTANT`; returns float32 `[S, S]` in 0..255.
    """
    size = image.shape[0]
    x, y = _source_coordinates(size, angle, scale, shift_x, shift_y)
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
        neighbour(rows, left) + right_share * (neighbour(rows, left + 1) - neighbour(rows, left))
        for rows in (top, top + 1)
    )
    return upper + bottom_share * (lower - upper)


def _source_coordinates(size: int, angle: Array, scale: Array, shift_x: Array, shift_y: Array) -> tuple[Array, Array]:
    """Where each output pixel comes from: int32 `[S, S]` x and y, in units of 2^-(_MATRIX_BITS + 1) pixels.

    With floating point, the compiler may compute a coordinate twice, once for its whole part and once for the rest,
    and round the two differently: a pixel on a boundary would then take the wrong neighbour.
    """
    cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale

    def fixed(value: Array) -> Array:
        return jnp.round(value * 2.0**_MATRIX_BITS).astype(jnp.int32)

    # Twice the distance from the centre is a whole number for even and odd sizes.
    distance = 2 * jnp.arange(size, dtype=jnp.int32) - (size - 1)
    centre = (size - 1) << _MATRIX_BITS
    offset_x = centre - fixed(2 * size * (cosine * shift_x - sine * shift_y))
    offset_y = centre - fixed(2 * size * (sine * shift_x + cosine * shift_y))
    x = (fixed(cosine) * distance)[None, :] - (fixed(sine) * distance)[:, None] + offset_x
    y = (fixed(sine) * distance)[None, :] + (fixed(cosine) * distance)[:, None] + offset_y
    return x, y


def mean_grey(image: UInt8[Array, "S S"]) -> Float[Array, ""]:
    """Mean grey level of a uint8 image, float32; the sum is of integers, hence exact in any order."""
    return jnp.sum(image, dtype=jnp.int32).astype(jnp.float32) / image.size


def adjust_contrast(
    image: Float[Array, "S S"], factor: Float[Array, ""], mean: Float[Array, ""]
) -> Float[Array, "S S"]:
    """Stretch grey levels about `mean` by `factor`; not clipped."""
    return (image - mean) * factor + mean


def adjust_gamma(image: Float[Array, "S S"], exponent: Float[Array, ""]) -> Float[Array, "S S"]:
    """Raise grey levels in 0..255 to `exponent`, as shares of the grey range."""
    return GREY_RANGE * jnp.power(image / GREY_RANGE, exponent)
