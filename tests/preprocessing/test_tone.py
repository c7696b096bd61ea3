import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from smooth_images import smooth_images

from cxr_jax.preprocessing.tone import TONE_SEGMENTS, adjust_contrast, adjust_gamma, apply_tone_curve, mean_grey

GREYS = jnp.linspace(0, 255, 1024, dtype=jnp.float32).reshape(32, 32)


def test_neutral_values_are_the_identity():
    image = jnp.asarray(smooth_images(1)[0])
    grey = image.astype(jnp.float32)
    np.testing.assert_allclose(adjust_gamma(grey, jnp.float32(1)), grey, rtol=0, atol=1e-4)
    np.testing.assert_allclose(adjust_contrast(grey, jnp.float32(1), mean_grey(image)), grey, rtol=0, atol=1e-4)
    np.testing.assert_allclose(apply_tone_curve(grey, jnp.ones(TONE_SEGMENTS)), grey, rtol=0, atol=1e-4)


def test_mean_grey_is_exact_for_a_large_white_image():
    assert float(mean_grey(jnp.full((2048, 2048), 255, jnp.uint8))) == 255.0


@given(st.lists(st.floats(0.0625, 16, width=32), min_size=TONE_SEGMENTS, max_size=TONE_SEGMENTS))
def test_a_tone_curve_interpolates_between_its_knots(slopes):
    result = np.asarray(jax.jit(apply_tone_curve)(GREYS, jnp.asarray(slopes, jnp.float32))).ravel()
    knots = np.concatenate([[0], np.cumsum(slopes)]) / np.sum(slopes) * 255
    expected = np.interp(np.asarray(GREYS).ravel(), np.linspace(0, 255, TONE_SEGMENTS + 1), knots)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-3)
    assert (np.diff(result) > 0).all()
    assert result[0] == 0 and 254.999 < result[-1] <= 255
