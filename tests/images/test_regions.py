"""What is shown of an image, region by region, on masks small enough to count."""

import numpy as np
import pytest

from cxr_jax.images.image_set import SelectedRows
from cxr_jax.images.regions import GREY, REGIONS, WHOLE, RegionRows, border, boxes, show_region

SIDE = 20


@pytest.fixture
def pair():
    """Two images without the fill's grey, and masks of two lungs each; those of the second reach into the border."""
    images = np.random.default_rng(0).integers(0, GREY, (2, SIDE, SIDE)).astype(np.uint8)
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, 4:15, 4:8] = masks[0, 5:16, 11:16] = True
    masks[1, 3:SIDE, 5:9] = masks[1, 3:18, 12:17] = True
    return images, masks


def shown(images, masks, region):
    """Where an image is shown; everything else is the one grey."""
    made = show_region(images, masks, region)
    assert made.dtype == np.uint8 and made.shape == images.shape
    kept = made != GREY
    np.testing.assert_array_equal(made[kept], images[kept])
    return kept


def test_lungs_and_what_is_outside_share_out_the_image(pair):
    _, masks = pair
    np.testing.assert_array_equal(shown(*pair, "lungs"), masks)
    np.testing.assert_array_equal(shown(*pair, "outside_lungs"), ~masks)


def test_the_box_is_the_smallest_around_both_lungs(pair):
    _, masks = pair
    hidden = ~shown(*pair, "outside_box")
    assert hidden[0].sum() == 12 * 12 and hidden[0, 4:16, 4:16].all()
    assert hidden[1].sum() == 17 * 12 and hidden[1, 3:SIDE, 5:17].all()
    np.testing.assert_array_equal(hidden, boxes(masks))


def test_the_border_shows_no_lung(pair):
    _, masks = pair
    kept = shown(*pair, "border")
    np.testing.assert_array_equal(kept[0], border(SIDE))
    assert border(SIDE).sum() == SIDE**2 - 16**2
    np.testing.assert_array_equal(kept[1], border(SIDE) & ~masks[1])
    assert kept[1].sum() == border(SIDE).sum() - 2 * 4


def test_the_mask_alone_has_no_grey_level_of_the_image(pair):
    images, masks = pair
    made = show_region(images, masks, "mask")
    np.testing.assert_array_equal(made, show_region(255 - images, masks, "mask"))
    np.testing.assert_array_equal(made, 255 * masks.astype(np.uint8))


def test_the_whole_image_is_left_alone_and_another_name_refused(pair):
    images, masks = pair
    assert show_region(images, masks, WHOLE) is images
    with pytest.raises(ValueError, match="no region 'heart'"):
        show_region(images, masks, "heart")


@pytest.mark.parametrize("region", REGIONS)
def test_images_are_made_when_they_are_asked_for_as_an_array_gives_them(pair, region):
    images, masks = pair
    rows = np.array([1, 0, 1])
    lazy = RegionRows(SelectedRows(images, rows), SelectedRows(masks.astype(np.uint8), rows), region)
    whole = show_region(images[rows], masks[rows], region)
    assert lazy.shape == whole.shape and lazy.dtype == np.uint8 and len(lazy) == 3
    for index in (slice(1, None), np.array([2, 0]), 1):
        np.testing.assert_array_equal(lazy[index], whole[index])
    np.testing.assert_array_equal(np.asarray(lazy), whole)


def test_the_border_is_the_outer_tenth():
    rim = border(50)
    assert rim.sum() == 50**2 - 40**2
    assert not rim[5:45, 5:45].any()
    assert border(4).sum() == 12
