import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.preprocessing.normalise import normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


def test_equals_the_definition_in_float64(images):
    expected = (images[..., None].astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    result = normalise(jnp.asarray(images), MEAN, STD)
    assert result.shape == (3, 8, 8, 3)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)  # values reach 2.7: a few float32 roundings


def test_black_and_white_land_where_the_channel_says():
    pixels = jnp.array([[[0, 255], [255, 0]]], jnp.uint8)
    result = np.asarray(normalise(pixels, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0)))
    np.testing.assert_array_equal(result[0, 0, 0], [-1.0, -0.5, 0.0])
    np.testing.assert_array_equal(result[0, 0, 1], [1.0, 1.5, 1.0])


def test_uint8_and_float_images_give_the_same_bits(images):
    from_uint8 = normalise(jnp.asarray(images), MEAN, STD)
    from_float = normalise(jnp.asarray(images, jnp.float32), MEAN, STD)
    np.testing.assert_array_equal(from_uint8, from_float)


def test_compiled_and_eager_agree(images):
    compiled = jax.jit(lambda grey: normalise(grey, MEAN, STD))(jnp.asarray(images))
    np.testing.assert_allclose(compiled, normalise(jnp.asarray(images), MEAN, STD), rtol=0, atol=1e-6)


def test_half_precision_is_rounded_once(images):
    result = normalise(jnp.asarray(images), MEAN, STD, jnp.bfloat16)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result, normalise(jnp.asarray(images), MEAN, STD).astype(jnp.bfloat16))


def test_channels_follow_the_constants(images):
    assert normalise(jnp.asarray(images), (0.5,), (0.5,)).shape == (3, 8, 8, 1)
