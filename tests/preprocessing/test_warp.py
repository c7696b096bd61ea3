import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smooth_images import SIZE, smooth_images

from cxr_jax.preprocessing.warp import Crop, warp

ZERO, ONE = jnp.float32(0), jnp.float32(1)


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


def test_neutral_values_are_the_identity():
    image = jnp.asarray(smooth_images(1)[0])
    np.testing.assert_array_equal(warp(image, ZERO, ONE, ZERO, ZERO), image)
    np.testing.assert_array_equal(warp(image, ZERO, ONE, ZERO, ZERO, Crop(ONE, ONE, ONE, -ONE)), image)


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


def opencv_affine(image: np.ndarray, matrix: np.ndarray, outside: int) -> np.ndarray:
    """`matrix` leads from the result's pixels to the image's."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image.astype(np.float32), matrix[:2], image.shape[::-1], flags=flags, borderMode=outside)


@settings(max_examples=30)
@given(width=st.floats(0.2, 1), height=st.floats(0.2, 1), x=st.floats(-1, 1), y=st.floats(-1, 1))
def test_a_crop_alone_is_the_part_of_the_picture_enlarged(width, height, x, y):
    image = smooth_images(1)[0]
    crop = Crop(*map(jnp.float32, (width, height, x, y)))
    result = np.asarray(jax.jit(warp)(jnp.asarray(image), ZERO, ONE, ZERO, ZERO, crop))
    middle = (SIZE - 1) / 2
    matrix = np.array([[width, 0, middle * (1 - width) * (1 + x)], [0, height, middle * (1 - height) * (1 + y)]])
    # Replicating the border would show if the crop left the picture: we would have black there.
    expected = opencv_affine(image, matrix, cv2.BORDER_REPLICATE)
    # neighbours differ by up to 60 levels; OpenCV may place pixels to 1/32 px
    np.testing.assert_allclose(result, expected, rtol=0, atol=2.5)


def test_a_crop_is_turned_about_its_own_centre():
    image = smooth_images(1)[0]
    width, height, x, y, angle, scale, shift = 0.5, 0.7, 0.4, -0.6, 0.4, 1.2, (0.1, -0.05)
    middle = (SIZE - 1) / 2
    to_centre, back = np.eye(3), np.eye(3)
    to_centre[:2, 2], back[:2, 2] = -middle - np.array(shift) * SIZE, middle
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, scale]]) / scale
    cut = np.diag([width, height, 1])
    cut[:2, 2] = [middle * (1 - width) * (1 + x), middle * (1 - height) * (1 + y)]
    expected = opencv_affine(image, cut @ back @ turn @ to_centre, cv2.BORDER_CONSTANT)
    crop = Crop(*map(jnp.float32, (width, height, x, y)))
    result = np.asarray(warp(jnp.asarray(image), *map(jnp.float32, (angle, scale, *shift)), crop))
    assert np.abs(result - expected).max() < 10  # at the black border, as above
    assert np.median(np.abs(result - expected)) < 0.6
