"""Images cut to a box, with a margin, and enlarged."""

import numpy as np
import pytest

from cxr_jax.images.crops import MARGIN, CroppedRows, crop_to_box
from cxr_jax.images.image_set import SelectedRows

SIDE = 100


def test_what_lies_in_the_box_fills_the_square():
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[20:70, 30:80] = 200
    made = crop_to_box(image, np.array([0.3 + MARGIN, 0.2 + MARGIN, 0.8 - MARGIN, 0.7 - MARGIN]))
    assert made.shape == image.shape and made.dtype == np.uint8 and (made == 200).mean() > 0.95
    # the margin is kept around it, and ends where the image does
    wider = crop_to_box(image, np.array([0.3, 0.2, 0.8, 0.7]))
    assert (wider == 200).mean() == pytest.approx((0.5 / (0.5 + 2 * MARGIN)) ** 2, abs=0.03)
    np.testing.assert_array_equal(crop_to_box(image, np.array([0.0, 0.0, 1.0, 1.0])), image)


def test_images_are_cropped_when_they_are_asked_for_as_an_array_gives_them():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 16, 16)).astype(np.uint8)
    boxes = np.array([[0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 0.5, 0.5], [0.3, 0.3, 1.0, 1.0]])
    rows = np.array([2, 0, 1])
    lazy = CroppedRows(SelectedRows(images, rows), boxes[rows])
    whole = np.stack([crop_to_box(images[row], boxes[row]) for row in rows])
    assert lazy.shape == whole.shape and lazy.dtype == np.uint8 and len(lazy) == 3
    for index in (slice(1, None), np.array([2, 0]), 1):
        np.testing.assert_array_equal(lazy[index], whole[index])
    np.testing.assert_array_equal(np.asarray(lazy), whole)
