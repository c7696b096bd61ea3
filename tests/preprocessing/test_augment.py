import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cxr_jax.config.schema import AugmentationConfig
from cxr_jax.preprocessing.augment import adjust_contrast, adjust_gamma, augment, draw, mean_grey, warp

SIZE = 40
EVERYTHING = AugmentationConfig(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotation=15.0,
    scale=0.2,
    translation=0.1,
    brightness=0.1,
    contrast=0.3,
    gamma=0.3,
)


def smooth_images(count: int, size: int = SIZE) -> np.ndarray:
    """Blurred noise stretched over the grey range: like a radiograph, it has no one-pixel detail."""
    noise = np.random.default_rng(7).normal(size=(count, size, size))
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 4) for image in noise])
    low, high = blurred.min((1, 2), keepdims=True), blurred.max((1, 2), keepdims=True)
    return np.round(255 * (blurred - low) / (high - low)).astype(np.uint8)


def keys_of(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def draws(config: AugmentationConfig, count: int):
    return jax.tree.map(np.asarray, jax.vmap(lambda key: draw(key, config))(keys_of(count)))


def reference_warp(image, angle, scale, shift_x, shift_y):
    """The same resampling in float64, written from its definition with explicit loops over the four neighbours."""
    size = image.shape[0]
    padded = np.zeros((size + 4, size + 4))
    padded[2:-2, 2:-2] = image
    centre = (size - 1) / 2
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    right, down = columns - centre - shift_x * size, rows - centre - shift_y * size
    x = np.clip((np.cos(angle) * right - np.sin(angle) * down) / scale + centre, -1, size) + 2
    y = np.clip((np.sin(angle) * right + np.cos(angle) * down) / scale + centre, -1, size) + 2
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    result = np.zeros((size, size))
    for down_by in (0, 1):
        for right_by in (0, 1):
            weight = (1 - abs(x - left - right_by)) * (1 - abs(y - top - down_by))
            result += weight * padded[top + down_by, left + right_by]
    return result


def test_nothing_on_returns_the_grey_levels_bit_exactly():
    images = smooth_images(3)
    result = augment(jnp.asarray(images), keys_of(3), AugmentationConfig())
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, images)


def test_neutral_values_are_the_identity():
    image = jnp.asarray(smooth_images(1)[0])
    zero, one = jnp.float32(0), jnp.float32(1)
    np.testing.assert_array_equal(warp(image, zero, one, zero, zero), image)
    grey = image.astype(jnp.float32)
    np.testing.assert_allclose(adjust_gamma(grey, one), grey, rtol=0, atol=1e-4)
    np.testing.assert_allclose(adjust_contrast(grey, one, mean_grey(image)), grey, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(AugmentationConfig)])
def test_a_change_alone_changes_images_and_leaves_the_others_neutral(name):
    config = AugmentationConfig(**{name: 0.5 if name.endswith("flip") else 0.3 if name != "rotation" else 20.0})
    images = smooth_images(8)
    result = np.asarray(augment(jnp.asarray(images), keys_of(8), config))
    assert (result != images).any()
    assert result.min() >= 0 and result.max() <= 255
    neutral = draw(jax.random.key(0), AugmentationConfig())
    drawn = draws(config, 8)
    field = {"rotation": "angle"}.get(name, name)
    changed = {"translation": {"shift_x", "shift_y"}}.get(name, {field})
    for other in set(drawn._fields) - changed:
        np.testing.assert_array_equal(getattr(drawn, other), np.broadcast_to(getattr(neutral, other), 8))


def test_draws_fill_their_documented_ranges():
    config = AugmentationConfig(0.3, 0.7, 10.0, 0.1, 0.05, 0.2, 0.4, 0.5)
    drawn = draws(config, 4000)
    assert abs(drawn.horizontal_flip.mean() - 0.3) < 0.03  # four standard errors
    assert abs(drawn.vertical_flip.mean() - 0.7) < 0.03
    ranges = {
        "angle": (-np.deg2rad(10), np.deg2rad(10)),
        "scale": (1 / 1.1, 1.1),
        "shift_x": (-0.05, 0.05),
        "shift_y": (-0.05, 0.05),
        "brightness": (-51, 51),
        "contrast": (1 / 1.4, 1.4),
        "gamma": (1 / 1.5, 1.5),
    }
    for name, (low, high) in ranges.items():
        values = getattr(drawn, name)
        slack = 1e-6 * abs(high)
        assert low - slack <= values.min() < low + 0.01 * (high - low), name
        assert high - 0.01 * (high - low) < values.max() <= high + slack, name
    for name in ("scale", "contrast", "gamma"):  # enlarging is as likely as shrinking
        assert abs((getattr(drawn, name) > 1).mean() - 0.5) < 0.035, name
    assert abs(np.corrcoef(drawn.shift_x, drawn.shift_y)[0, 1]) < 0.07


def test_switching_a_change_on_leaves_the_other_draws_alone():
    without = draws(AugmentationConfig(rotation=10.0), 16)
    together = draws(AugmentationConfig(rotation=10.0, horizontal_flip=0.5, gamma=0.3), 16)
    np.testing.assert_array_equal(without.angle, together.angle)


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_flips_reverse_the_right_axis(name, axis):
    images = smooth_images(16)
    config = AugmentationConfig(**{name: 0.5})
    flipped = getattr(draws(config, 16), name)
    assert 0 < flipped.sum() < 16
    expected = np.where(flipped[:, None, None], np.flip(images, axis), images)
    np.testing.assert_array_equal(augment(jnp.asarray(images), keys_of(16), config), expected)


def test_flips_alone_compute_no_resampling():
    config = AugmentationConfig(horizontal_flip=0.5, vertical_flip=0.5)
    program = str(jax.make_jaxpr(lambda i, k: augment(i, k, config))(jnp.asarray(smooth_images(2)), keys_of(2)))
    assert "gather" not in program
    assert "cos" not in program
    warped = AugmentationConfig(rotation=1.0)
    program = str(jax.make_jaxpr(lambda i, k: augment(i, k, warped))(jnp.asarray(smooth_images(2)), keys_of(2)))
    assert "gather" in program


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(-4, 4, width=32),
    scale=st.floats(0.5, 2.0, width=32),
    shift_x=st.floats(-0.5, 0.5, width=32),
    shift_y=st.floats(-0.5, 0.5, width=32),
)
def test_warp_equals_its_definition(angle, scale, shift_x, shift_y):
    image = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    result = jax.jit(warp)(jnp.asarray(image), *map(jnp.float32, (angle, scale, shift_x, shift_y)))
    expected = reference_warp(image, angle, scale, shift_x, shift_y)
    # Fixed point misplaces a pixel by at most 2^-15 * SIZE * 1.5 = 0.002 px; neighbours differ by up to 255, twice.
    np.testing.assert_allclose(result, expected, rtol=0, atol=1.0)
    assert np.abs(np.asarray(result) - expected).mean() < 0.1


@pytest.mark.parametrize(
    ("degrees", "scale", "shift_x", "shift_y"),
    [(10, 1.0, 0, 0), (-20, 1.3, 0, 0), (0, 0.8, 0.1, -0.2), (33, 1.1, -0.1, 0.05), (180, 1, 0, 0)],
)
@pytest.mark.parametrize("size", [40, 41])
def test_warp_equals_opencv(degrees, scale, shift_x, shift_y, size):
    image = smooth_images(1, size)[0]
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), degrees, scale)
    matrix[:, 2] += np.array([shift_x, shift_y]) * size
    expected = cv2.warpAffine(
        image.astype(np.float32), matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    result = np.asarray(warp(jnp.asarray(image), *map(jnp.float32, (np.deg2rad(degrees), scale, shift_x, shift_y))))
    difference = np.abs(result - expected)
    # OpenCV may place pixels to 1/32 px only: against the black border, one such step is worth 255 / 32 = 8 levels.
    assert difference.max() < 10
    assert np.median(difference) < 0.6
    assert np.abs(image.astype(float) - expected).max() > 20  # the reference does move the image


def test_rotation_is_counter_clockwise_and_shifts_go_right_and_down():
    image = np.zeros((5, 5), np.uint8)
    image[2, 4] = 200  # three o'clock
    zero, one = jnp.float32(0), jnp.float32(1)
    turned = np.asarray(warp(jnp.asarray(image), jnp.float32(np.pi / 2), one, zero, zero))
    assert np.unravel_index(turned.argmax(), turned.shape) == (0, 2)  # twelve o'clock
    moved = np.asarray(warp(jnp.asarray(image), zero, one, jnp.float32(-0.4), jnp.float32(0.2)))
    assert np.unravel_index(moved.argmax(), moved.shape) == (3, 2)


def test_warp_at_full_size_keeps_to_the_stated_precision():
    size, angle = 1024, 0.3
    ramp = np.broadcast_to(np.linspace(0, 255, size), (size, size)).astype(np.uint8)
    result = np.asarray(warp(jnp.asarray(ramp), *map(jnp.float32, (angle, 1.0, 0, 0))))
    expected = reference_warp(ramp, angle, 1.0, 0, 0)
    interior = slice(size // 4, -size // 4)
    np.testing.assert_allclose(result[interior, interior], expected[interior, interior], rtol=0, atol=1 / 32)


@given(
    contrast=st.floats(0, 1, exclude_min=True),
    brightness=st.floats(0, 1, exclude_min=True),
    gamma=st.floats(0, 1, exclude_min=True),
)
@settings(max_examples=10, deadline=None)
def test_grey_level_changes_equal_numpy(contrast, brightness, gamma):
    config = AugmentationConfig(contrast=contrast, brightness=brightness, gamma=gamma)
    images = smooth_images(4)
    drawn = jax.tree.map(lambda value: np.asarray(value, np.float64)[:, None, None], draws(config, 4))
    mean = images.mean((1, 2), keepdims=True)
    expected = np.clip((images - mean) * drawn.contrast + mean + drawn.brightness, 0, 255)
    expected = 255 * (expected / 255) ** drawn.gamma
    result = augment(jnp.asarray(images), keys_of(4), config)
    # float32 near 0 under an exponent as low as 1/2: sqrt(1e-5 / 255) * 255 = 0.05
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=0.1)


def test_mean_grey_is_exact_for_a_large_white_image():
    assert float(mean_grey(jnp.full((2048, 2048), 255, jnp.uint8))) == 255.0


def test_an_example_depends_on_its_own_key_only():
    images, keys = smooth_images(24), keys_of(24)
    whole = np.asarray(augment(jnp.asarray(images), keys, EVERYTHING))
    order = np.random.default_rng(0).permutation(24)
    np.testing.assert_array_equal(augment(jnp.asarray(images[order]), keys[order], EVERYTHING), whole[order])
    for start, stop in ((0, 1), (3, 5), (5, 12), (7, 24)):
        part = augment(jnp.asarray(images[start:stop]), keys[start:stop], EVERYTHING)
        np.testing.assert_array_equal(part, whole[start:stop])
    other_keys = augment(jnp.asarray(images), keys_of(24, seed=1), EVERYTHING)
    assert (np.asarray(other_keys) != whole).any((1, 2)).all()


def test_sharded_over_devices_gives_the_same_bits_without_gathering_the_batch():
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("needs several devices (tests/conftest.py makes 8 CPU devices)")
    count = 2 * len(devices)
    images, keys = jnp.asarray(smooth_images(count)), keys_of(count)
    sharding = NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec("data"))
    arguments = jax.device_put(images, sharding), jax.device_put(keys, sharding)
    sharded = augment(*arguments, EVERYTHING)
    assert sharded.sharding.is_equivalent_to(sharding, sharded.ndim)
    np.testing.assert_array_equal(sharded, augment(images, keys, EVERYTHING))
    program = augment.lower(*arguments, EVERYTHING).compile().as_text()
    assert "all-gather" not in program and "all-reduce" not in program


def test_inside_another_jit_gives_the_same_bits():
    images, keys = jnp.asarray(smooth_images(4)), keys_of(4)
    outer = jax.jit(lambda i, k: augment(i, k, EVERYTHING) / 255)
    np.testing.assert_allclose(outer(images, keys), augment(images, keys, EVERYTHING) / 255, rtol=0, atol=1e-6)
