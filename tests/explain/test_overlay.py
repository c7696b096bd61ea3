import cv2
import numpy as np
import pytest

from cxr_jax.data.decode import to_square
from cxr_jax.explain.overlay import OPACITY, overlay, place_on_original


@pytest.fixture
def blob():
    """An image of 120 x 200 with one bright spot, and where the spot is."""
    image = np.zeros((120, 200), np.float32)
    cv2.circle(image, (130, 50), 12, 1.0, -1)
    return image, (130, 50)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("transposed", [False, True])
def test_heat_lands_where_the_network_saw_it(blob, resize, transposed):
    """What `to_square` shows the network goes back to where it came from."""
    image, (x, y) = blob
    if transposed:
        image, (x, y) = np.ascontiguousarray(image.T), (y, x)
    seen = to_square((255 * image).astype(np.uint8), 60, resize, "area") / 255
    heat = place_on_original(seen, *image.shape, resize)
    assert heat.shape == image.shape
    assert heat.dtype == np.float32
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    assert abs((rows * heat).sum() / heat.sum() - y) < 1
    assert abs((columns * heat).sum() / heat.sum() - x) < 1
    assert np.abs(heat - image).mean() < 0.01


def test_crop_leaves_what_was_not_seen_without_heat():
    heat = place_on_original(np.ones((7, 7)), 100, 160, "crop")
    np.testing.assert_array_equal(heat[:, 30:130], 1)
    np.testing.assert_array_equal(heat[:, :30], 0)
    np.testing.assert_array_equal(heat[:, 130:], 0)


def test_without_heat_the_radiograph_is_untouched():
    grey = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    result = overlay(grey, np.zeros((30, 40), np.float32))
    assert result.shape == (30, 40, 3)
    np.testing.assert_array_equal(result, np.repeat(grey[..., None], 3, 2))


def test_heat_is_blended_by_its_opacity():
    grey = np.full((2, 2), 100, np.uint8)
    heat = np.array([[0, 0.5], [1, 1]], np.float32)
    result = overlay(grey, heat).astype(float)
    hottest = (result[1, 0] - 100 * (1 - OPACITY)) / OPACITY
    assert hottest[0] > 230 and hottest[1] > 120 and hottest[2] < 60  # orange: red, some green, little blue
    np.testing.assert_array_equal(result[1, 0], result[1, 1])
    np.testing.assert_array_equal(overlay(grey, heat, opacity=0.0), 100)
    assert 0 < np.abs(result[0, 1] - 100).max() < np.abs(result[1, 0] - 100).max()
