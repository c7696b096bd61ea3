"""Images and keys for the tests of the random changes."""

import cv2
import jax
import numpy as np

SIZE = 40


def smooth_images(count: int, size: int = SIZE) -> np.ndarray:
    """Blurred noise stretched over the grey range: like a radiograph, it has no one-pixel detail."""
    noise = np.random.default_rng(7).normal(size=(count, size, size))
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 4) for image in noise])
    low, high = blurred.min((1, 2), keepdims=True), blurred.max((1, 2), keepdims=True)
    return np.round(255 * (blurred - low) / (high - low)).astype(np.uint8)


def keys_of(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)
