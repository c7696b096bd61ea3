"""How alike two images are at several scales: MS-SSIM of Wang, Simoncelli and Bovik (2003)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cxr_jax.preprocessing.normalise import GREY_RANGE

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, from the image itself to that of a sixteenth of its side, as in the paper."""

_WINDOW, _DEVIATION = 11, 1.5
_C1, _C2 = (0.01 * GREY_RANGE) ** 2, (0.03 * GREY_RANGE) ** 2


def scales_of(image_size: int) -> int:
    """Returns at how many scales images are compared: up to five, as long as the window of 11 pixels fits.

    64 pixels have three, 128 have four.
    """
    return max(1, sum(image_size // 2**scale >= _WINDOW for scale in range(len(WEIGHTS))))


@jax.jit
def similarity(first: Array, second: Array) -> Array:
    """Returns the similarity [N] float32 of every pair of images [N, S, S] uint8, 1 for equal ones.

    Contrast and structure are compared at every scale, brightness at the coarsest. With fewer than five scales the
    paper's weights of those that there are count, in their proportions. A negative comparison counts as 0.
    """
    scales = scales_of(first.shape[1])
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    one, other = (images.astype(jnp.float32)[..., None] for images in (first, second))
    found = jnp.ones(len(first), jnp.float32)
    for scale, weight in enumerate(weights):
        brightness, structure = _compared(one, other)
        compared = jnp.mean(brightness * structure if scale == scales - 1 else structure, (1, 2, 3))
        found = found * jnp.maximum(compared, 0.0) ** jnp.float32(weight)
        one, other = _halved(one), _halved(other)
    return found


def _compared(one: Array, other: Array) -> tuple[Array, Array]:
    """Returns brightness, and contrast with structure, compared in every window, [N, h, w, 1] each."""
    mean_one, mean_other = _blurred(one), _blurred(other)
    variance_one = _blurred(jnp.square(one)) - jnp.square(mean_one)
    variance_other = _blurred(jnp.square(other)) - jnp.square(mean_other)
    covariance = _blurred(one * other) - mean_one * mean_other
    brightness = (2 * mean_one * mean_other + _C1) / (jnp.square(mean_one) + jnp.square(mean_other) + _C1)
    return brightness, (2 * covariance + _C2) / (variance_one + variance_other + _C2)


def _blurred(images: Array) -> Array:
    """Returns the Gaussian mean of every window that lies within the images."""
    place = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-(place**2) / (2 * _DEVIATION**2))
    kernel = jnp.asarray(window / window.sum(), jnp.float32)
    for shape in ((_WINDOW, 1, 1, 1), (1, _WINDOW, 1, 1)):
        images = lax.conv_general_dilated(
            images, kernel.reshape(shape), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return images


def _halved(images: Array) -> Array:
    """Returns the mean of every 2 x 2 pixels."""
    count, side = images.shape[0], images.shape[1] // 2
    return images[:, : 2 * side, : 2 * side].reshape(count, side, 2, side, 2, 1).mean((2, 4))
