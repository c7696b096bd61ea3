import cv2
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from smooth_images import SIZE

from cxr_jax.preprocessing.degradation import add_noise, cut_out, gaussian_blur

IMAGE = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE)).astype(np.float32)


@settings(max_examples=15)
@given(share=st.floats(0.02, 1), largest=st.sampled_from([0.5, 2.0, 4.0]))
def test_blur_is_opencv_with_the_window_of_the_largest_sigma(share, largest):
    sigma, window = share * largest, 2 * int(np.ceil(3 * largest)) + 1
    expected = cv2.GaussianBlur(IMAGE, (window, window), sigma, borderType=cv2.BORDER_REFLECT_101)
    result = jax.jit(gaussian_blur, static_argnums=2)(jnp.asarray(IMAGE), jnp.float32(sigma), largest)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-3)


def test_no_blur_is_the_identity_and_white_stays_white():
    np.testing.assert_array_equal(gaussian_blur(jnp.asarray(IMAGE), jnp.float32(0), 3.0), IMAGE)
    white = gaussian_blur(jnp.full((SIZE, SIZE), 255.0), jnp.float32(2.7), 3.0)
    assert float(white.max()) <= 255 and float(white.min()) > 254.99


def test_noise_is_white_and_gaussian_with_the_deviation_that_is_asked_for():
    grey = jnp.full((200, 200), 128.0)
    noise = np.asarray(add_noise(grey, jax.random.key(3), jnp.float32(10)) - grey)
    assert abs(noise.mean()) < 0.2 and abs(noise.std() - 10) < 0.15  # four standard errors
    assert kstest(noise.ravel() / 10, "norm").pvalue > 1e-3
    spectrum = np.fft.ifft2(np.abs(np.fft.fft2(noise)) ** 2).real / noise.size / 100
    assert np.abs(spectrum.ravel()[1:]).max() < 0.025  # autocorrelation at every shift but 0: five standard errors
    other = add_noise(grey, jax.random.key(4), jnp.float32(10)) - grey
    assert abs(np.corrcoef(noise.ravel(), np.asarray(other).ravel())[0, 1]) < 0.02


def test_no_noise_is_the_identity_and_much_noise_stays_in_range():
    image, key = jnp.asarray(IMAGE), jax.random.key(0)
    np.testing.assert_array_equal(add_noise(image, key, jnp.float32(0)), IMAGE)
    noisy = np.asarray(add_noise(image, key, jnp.float32(300)))
    assert noisy.min() == 0 and noisy.max() == 255


@given(
    x=st.floats(0, 1, exclude_max=True, width=32),
    y=st.floats(0, 1, exclude_max=True, width=32),
    length=st.integers(0, SIZE),
)
def test_cutout_covers_a_square_clipped_at_the_border(x, y, length):
    result = np.asarray(
        jax.jit(cut_out, static_argnums=3)(jnp.asarray(IMAGE), jnp.float32(x), jnp.float32(y), length / SIZE)
    )
    column, row = int(np.float32(x) * SIZE), int(np.float32(y) * SIZE)
    covered = np.zeros((SIZE, SIZE), bool)
    top, left = row - length // 2, column - length // 2
    covered[max(top, 0) : max(top + length, 0), max(left, 0) : max(left + length, 0)] = True
    np.testing.assert_array_equal(result[~covered], IMAGE[~covered])
    np.testing.assert_allclose(result[covered], IMAGE.mean(), rtol=1e-6)
