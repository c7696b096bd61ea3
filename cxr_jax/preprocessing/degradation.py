"""Changes that take information away: blur, noise and a covered square."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cxr_jax.preprocessing.normalise import GREY_RANGE
from cxr_jax.preprocessing.rounding import product
from cxr_jax.preprocessing.tone import mean_grey


def gaussian_blur(image: Float[Array, "S S"], sigma: Float[Array, ""], largest_sigma: float) -> Float[Array, "S S"]:
    """Blurs by a Gaussian of `sigma` pixels, at most `largest_sigma`; 0 changes nothing.

    The window is that of `largest_sigma`, 3 sigmas to either side, and the border is mirrored without repeating the
    outermost pixel, as OpenCV's `GaussianBlur` with that window and `BORDER_REFLECT_101`.
    """
    radius = math.ceil(3 * largest_sigma)
    # a sigma this small leaves the centre alone, without dividing by 0
    exponent = -0.5 / jnp.square(jnp.maximum(sigma, 1e-3))
    weights = [jnp.exp(exponent * jnp.float32(offset**2)) for offset in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:], start=jnp.float32(0))
    weights = [weight / total for weight in weights]
    for axis in (0, 1):
        size = image.shape[axis]
        padded = jnp.pad(image, [(radius, radius) if axis == other else (0, 0) for other in (0, 1)], mode="reflect")

        def shifted(offset: int, padded: Array = padded, size: int = size, axis: int = axis) -> Array:
            return jax.lax.slice_in_dim(padded, radius + offset, radius + offset + size, axis=axis)

        image = product(weights[0], shifted(0))
        for offset in range(1, radius + 1):
            image = image + product(weights[offset], shifted(-offset) + shifted(offset))
    return jnp.clip(image, 0.0, GREY_RANGE)


def add_noise(image: Float[Array, "S S"], key: Key[Array, ""], deviation: Float[Array, ""]) -> Float[Array, "S S"]:
    """Adds white Gaussian noise with a standard deviation of `deviation` grey levels, clipped to 0..255."""
    noise = jax.random.normal(key, image.shape, jnp.float32)
    return jnp.clip(image + product(deviation, noise), 0.0, GREY_RANGE)


def cut_out(image: Float[Array, "S S"], x: Float[Array, ""], y: Float[Array, ""], side: float) -> Float[Array, "S S"]:
    """Covers the square of `side`, centred on (`x`, `y`), with the image's mean grey; all are shares of the side.

    It is clipped at the border: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017. The mean is that of grey levels rounded to whole numbers.
    """
    size = image.shape[0]
    length = round(side * size)
    pixels = jnp.arange(size, dtype=jnp.int32)
    first_column, first_row = (jnp.floor(place * size).astype(jnp.int32) - length // 2 for place in (x, y))
    columns = (pixels >= first_column) & (pixels < first_column + length)
    rows = (pixels >= first_row) & (pixels < first_row + length)
    covered = rows[:, None] & columns[None, :]
    return jnp.where(covered, mean_grey(jnp.round(image).astype(jnp.uint8)), image)
