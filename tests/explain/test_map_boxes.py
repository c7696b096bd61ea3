"""Boxes around connected regions of a map, against regions that are filled place by place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxr_jax.explain.map_boxes import LEVELS, answer_of_map, boxes_of_map
from cxr_jax.images.boxes import Box

MAPS = arrays(np.float32, (6, 7), elements=st.sampled_from([0.0, 0.2, 0.3, 0.6, 0.8, 1.0]))


def filled(mask):
    """Boxes of the regions of a mask, found by walking from place to place."""
    left, found = {tuple(place) for place in np.argwhere(mask)}, set()
    while left:
        waiting, region = [left.pop()], []
        while waiting:
            row, column = waiting.pop()
            region.append((row, column))
            near = {(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & left
            left -= near
            waiting += near
        rows, columns = zip(*region, strict=True)
        found.add(Box(min(columns), min(rows), max(columns) - min(columns) + 1, max(rows) - min(rows) + 1))
    return found


@given(MAPS)
def test_boxes_are_around_all_that_hangs_together_at_each_level(heat):
    for level in LEVELS:
        assert set(boxes_of_map(heat, (level,))) == filled(heat * 255 >= level)
    assert len(boxes_of_map(heat)) == sum(len(boxes_of_map(heat, (level,))) for level in LEVELS)


@given(MAPS)
def test_the_hottest_place_is_in_a_box_of_every_level_where_the_map_reaches_its_peak(heat):
    answer = answer_of_map(heat)
    if not heat.any():
        assert answer.boxes == ()
        assert answer.place is None
        return
    x, y = answer.place
    assert heat[int(y), int(x)] == heat.max()
    if heat.max() == 1:
        for level in LEVELS:
            assert any(box.holds(x, y) for box in boxes_of_map(heat, (level,)))


def test_the_levels_are_those_of_the_paper():
    assert LEVELS == (60, 180)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0], heat[3, 3] = 60 / 255, 1.0
    assert boxes_of_map(heat, (60,)) == (Box(0, 0, 1, 1), Box(3, 3, 1, 1))
    assert boxes_of_map(heat, (180,)) == (Box(3, 3, 1, 1),)
