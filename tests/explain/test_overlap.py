import numpy as np
import pytest

from cxr_jax.explain.overlap import dice, field_overlap, iou


def test_overlap_is_counted_in_pixels():
    fields, masks = np.zeros((3, 8, 8), bool), np.zeros((3, 8, 8), bool)
    masks[:, :4] = True
    fields[0, :4] = True  # the same
    fields[1, 2:6] = True  # half of each in common
    fields[2, 4:] = True  # apart
    np.testing.assert_allclose(dice(fields, masks), [1, 0.5, 0])
    np.testing.assert_allclose(iou(fields, masks), [1, 1 / 3, 0])
    found = field_overlap(fields, masks, np.arange(3))
    assert (found.images, found.dice.value) == (3, pytest.approx(0.5))
    assert 0 <= found.dice.low < 0.5 < found.dice.high <= 1
    assert found.iou.value == pytest.approx(4 / 9)
