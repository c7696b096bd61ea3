import numpy as np
import pytest

from cxr_jax.explain.attention import heat_share, hits, judge_attention
from cxr_jax.explain.lung_field import USUAL, draw_field
from cxr_jax.images.regions import border

SIDE, COUNT = 56, 8
IMAGES = np.full((COUNT, SIDE, SIDE), 100, np.uint8)
CLASSES, CLUSTERS = np.zeros(COUNT, int), np.arange(COUNT)


def maps_of(*cells):
    heat = np.zeros((COUNT, 7, 7), np.float32)
    for row, column in cells:
        heat[:, row, column] = 1
    return heat + np.random.default_rng(0).random(heat.shape).astype(np.float32) * 1e-3


def test_the_share_of_a_uniform_map_is_the_area():
    masks = np.random.default_rng(1).random((COUNT, SIDE, SIDE)) < 0.3
    np.testing.assert_allclose(heat_share(np.ones((COUNT, 7, 7)), masks), masks.mean(axis=(1, 2)))


def test_the_share_of_one_cell_is_counted_where_it_lies():
    masks = np.zeros((1, 70, 70), bool)
    masks[:, :40] = True
    heat = np.zeros((1, 7, 7), np.float32)
    heat[0, 1, 3] = 1
    assert heat_share(heat, masks)[0] == pytest.approx(1)
    heat[0, 5, 3] = 3  # and its bilinear slope ends at the middle of the next cell
    assert heat_share(heat, masks)[0] == pytest.approx(0.25, abs=0.01)


def test_maps_in_the_lungs_pass_both_rules():
    lungs, rim = judge_attention(IMAGES, maps_of((3, 2), (3, 4), (2, 2)), CLASSES, CLUSTERS)
    assert lungs.passes and rim.passes
    area = draw_field(USUAL, SIDE).mean()
    assert lungs.means["NORMAL"].value == pytest.approx(1 - area, abs=0.15)
    assert rim.means["NORMAL"].value == pytest.approx(-border(SIDE).mean(), abs=0.05)


def test_maps_in_a_corner_fail_both_rules():
    lungs, rim = judge_attention(IMAGES, maps_of((0, 0), (6, 6)), CLASSES, CLUSTERS)
    assert lungs.passes is False and rim.passes is False
    assert lungs.means["NORMAL"].value < -0.3 and rim.means["NORMAL"].value > 0.3


def test_uniform_maps_pass_neither():
    assert [verdict.passes for verdict in judge_attention(IMAGES, np.ones((COUNT, 7, 7)), CLASSES, CLUSTERS)] == [
        False,
        False,
    ]


def drawn_masks():
    """Masks of two lungs, the same in all images: 30 % of each."""
    masks = np.zeros((COUNT, SIDE, SIDE), bool)
    masks[:, 10:45, 8:22] = masks[:, 10:45, 34:47] = True
    return masks


def test_the_hottest_place_is_that_of_the_enlarged_map():
    masks, heat = drawn_masks(), np.full((COUNT, 7, 7), 0.1, np.float32)
    heat[:4, 3, 1] = 1  # in the left lung
    heat[4:, 3, 3] = 1  # between the lungs
    np.testing.assert_array_equal(hits(heat, masks), [True] * 4 + [False] * 4)


def test_masks_take_the_place_of_the_coarse_field_and_the_hottest_places_are_judged():
    masks = drawn_masks()
    area = masks[0].mean()
    lungs, pointing, rim = judge_attention(IMAGES, maps_of((3, 1), (3, 5), (2, 1)), CLASSES, CLUSTERS, masks)
    assert (lungs.check.name, pointing.check.name, rim.check.name) == ("lungs", "pointing", "border")
    assert "lung masks" in lungs.check.measure and lungs.passes and pointing.passes
    share = heat_share(maps_of((3, 1), (3, 5), (2, 1)), masks)
    assert lungs.means["NORMAL"].value == pytest.approx(share.mean() - area)
    assert pointing.means["NORMAL"].value == pytest.approx(1 - area)
    assert f"8 of 8 maps; a place by lot is in {area:.1%}" in pointing.told
    lungs, pointing, _ = judge_attention(IMAGES, maps_of((3, 3), (0, 6)), CLASSES, CLUSTERS, masks)
    assert lungs.passes is False and pointing.passes is False
    assert pointing.means["NORMAL"].value == pytest.approx(-area)


def test_the_coarse_field_stands_in_for_masks_that_are_missing():
    masks = drawn_masks()
    masks[:2] = False
    maps = maps_of((3, 1), (3, 5))
    lungs, pointing, _ = judge_attention(IMAGES, maps, CLASSES, CLUSTERS, masks)
    assert "2 of 8 images have no mask: a coarse lung field stands in for it" in lungs.told
    assert "6 of 6 maps" in pointing.told
    without = judge_attention(IMAGES, maps, CLASSES, CLUSTERS, np.zeros_like(masks))
    assert without == judge_attention(IMAGES, maps, CLASSES, CLUSTERS)
