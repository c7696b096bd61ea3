import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smooth_images import smooth_images

from cxr_jax.preprocessing.equalisation import equalise, equalise_adaptively


def noisy(seed: int, size: int, low: int, high: int) -> np.ndarray:
    """Whole numbers from `low` to `high`, more of them near `low`."""
    uniform = np.random.default_rng(seed).random((size, size))
    return np.floor(low + (high - low + 1) * uniform**3).astype(np.uint8)


grey_ranges = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted)


@settings(max_examples=25)
@given(seed=st.integers(0, 99), size=st.sampled_from([16, 40, 41]), levels=grey_ranges)
def test_equalise_is_opencv_bit_for_bit(seed, size, levels):
    image = noisy(seed, size, *levels)
    np.testing.assert_array_equal(jax.jit(equalise)(jnp.asarray(image)), cv2.equalizeHist(image))


@settings(max_examples=25)
@given(seed=st.integers(0, 99), size=st.sampled_from([16, 17, 40, 47]), levels=grey_ranges)
def test_clahe_is_opencv_bit_for_bit(seed, size, levels):
    image = noisy(seed, size, *levels)
    expected = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(image)
    np.testing.assert_array_equal(jax.jit(equalise_adaptively)(jnp.asarray(image)), expected)


@pytest.mark.parametrize("size", [96, 150, 224, 300])
def test_smooth_images_of_the_sizes_that_networks_see(size):
    """Which way OpenCV rounds a half hangs on its order of operations; at 224 px 0.3 % of pixels are one."""
    images = smooth_images(3, size)
    adaptive, whole = (jax.jit(jax.vmap(change)) for change in (equalise_adaptively, equalise))
    clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
    np.testing.assert_array_equal(adaptive(jnp.asarray(images)), np.stack([clahe.apply(image) for image in images]))
    np.testing.assert_array_equal(whole(jnp.asarray(images)), np.stack([cv2.equalizeHist(image) for image in images]))
