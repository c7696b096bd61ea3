import cv2
import numpy as np

from cxr_jax.images.enlarged import EnlargedRows
from cxr_jax.images.image_set import JoinedRows


def test_images_are_enlarged_when_they_are_asked_for():
    small = np.random.default_rng(0).integers(0, 256, (5, 8, 8)).astype(np.uint8)
    rows = EnlargedRows(small, 20)
    expected = np.stack([cv2.resize(image, (20, 20), interpolation=cv2.INTER_LINEAR) for image in small])
    assert (rows.shape, rows.dtype, len(rows)) == ((5, 20, 20), np.uint8, 5)
    np.testing.assert_array_equal(np.asarray(rows), expected)
    np.testing.assert_array_equal(rows[3], expected[3])
    np.testing.assert_array_equal(rows[np.array([4, 0])], expected[[4, 0]])
    joined = JoinedRows((np.zeros((2, 20, 20), np.uint8), rows))
    np.testing.assert_array_equal(joined[np.array([1, 4])], np.stack([np.zeros((20, 20)), expected[2]]))
