"""Changes of grey levels that treat every pixel alike: contrast, gamma and random monotone tone curves."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from cxr_jax.preprocessing.normalise import GREY_RANGE
from cxr_jax.preprocessing.rounding import product

TONE_SEGMENTS = 8
"""Straight pieces of a tone curve, of equal width on the grey range."""


def mean_grey(image: UInt8[Array, "S S"]) -> Float[Array, ""]:
    """Returns the mean grey level of a uint8 image, float32; the sum is of integers, hence exact in any order."""
    return jnp.sum(image, dtype=jnp.int32).astype(jnp.float32) / image.size


def adjust_contrast(
    image: Float[Array, "S S"], factor: Float[Array, ""], mean: Float[Array, ""]
) -> Float[Array, "S S"]:
    """Stretches grey levels about `mean` by `factor`; not clipped."""
    return product(image - mean, factor) + mean


def adjust_gamma(image: Float[Array, "S S"], exponent: Float[Array, ""]) -> Float[Array, "S S"]:
    """Raises grey levels in 0..255 to `exponent`, as shares of the grey range."""
    return GREY_RANGE * jnp.power(image / GREY_RANGE, exponent)


def apply_tone_curve(image: Float[Array, "S S"], slopes: Float[Array, " K"]) -> Float[Array, "S S"]:
    """Sends grey levels in 0..255 through the monotone curve whose K equally wide pieces rise in proportion to
    `slopes`.

    `slopes` are above 0, at any scale: black stays black and white white. Equal slopes change nothing. With random
    slopes it is what histogram matching to a random histogram of K bars would do; gamma is a special case, nearly.
    """
    pieces = slopes.shape[0]
    # Sums of few terms are written out: a reduction's order, and its last bit, could depend on the batch.
    total = sum((slopes[piece] for piece in range(1, pieces)), start=slopes[0])
    shares = [slopes[piece] / total for piece in range(pieces)]
    position = product(image, jnp.float32(pieces / GREY_RANGE))
    changed = jnp.zeros_like(image)
    for piece, share in enumerate(shares):
        changed = changed + product(share, jnp.clip(position - piece, 0.0, 1.0))
    return jnp.clip(GREY_RANGE * changed, 0.0, GREY_RANGE)
