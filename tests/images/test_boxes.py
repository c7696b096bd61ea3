"""Boxes against boxes painted into an image, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.images.boxes import (
    Box,
    centred,
    common_area,
    covered_share,
    intersection_over_found,
    intersection_over_union,
    mean_box,
)

SIDE = 12
EDGES = st.integers(0, SIDE - 1)


@st.composite
def boxes(draw):
    left, top = draw(EDGES), draw(EDGES)
    return Box(left, top, draw(st.integers(1, SIDE - left)), draw(st.integers(1, SIDE - top)))


def painted(*found):
    image = np.zeros((SIDE, SIDE), bool)
    for box in found:
        image[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = True
    return image


@given(boxes(), boxes())
def test_shares_are_those_of_painted_pixels(first, second):
    one, other = painted(first), painted(second)
    assert common_area(first, second) == np.sum(one & other)
    assert intersection_over_union(first, second) == pytest.approx(np.sum(one & other) / np.sum(one | other))
    assert intersection_over_found(first, second) == pytest.approx(np.sum(one & other) / one.sum())
    assert covered_share([first, second], SIDE, SIDE) == pytest.approx((one | other).mean())


@given(boxes(), boxes(), st.floats(0.1, 10), st.floats(0.1, 10))
def test_shares_are_symmetric_within_bounds_and_the_same_at_any_scale(first, second, across, down):
    union = intersection_over_union(first, second)
    assert union == intersection_over_union(second, first)
    assert 0 <= union <= intersection_over_found(first, second) <= 1
    assert intersection_over_union(first, first) == intersection_over_found(first, first) == 1
    scaled = first.scaled(across, down), second.scaled(across, down)
    assert intersection_over_union(*scaled) == pytest.approx(union, abs=1e-9)


@given(boxes(), EDGES, EDGES)
def test_a_box_holds_the_middles_of_its_own_pixels(box, x, y):
    assert box.holds(x + 0.5, y + 0.5) == painted(box)[y, x]


def test_a_box_without_an_area_covers_nothing():
    empty, whole = Box(3, 3, 0, 0), Box(0, 0, 9, 9)
    assert intersection_over_found(empty, whole) == intersection_over_union(empty, whole) == 0
    assert intersection_over_union(empty, empty) == 0
    assert covered_share([], 4, 4) == 0


def test_a_mean_box_has_the_mean_corner_and_sides_and_a_centred_one_the_middle():
    mean = mean_box([Box(0, 2, 4, 6), Box(2, 4, 8, 2)])
    assert mean == Box(1, 3, 6, 4)
    assert centred(mean, 20, 10) == Box(7, 3, 6, 4)
    assert centred(mean, 20, 10).centre == (10, 5)


def test_a_box_may_reach_over_the_edge_by_the_slack_alone():
    assert Box(-0.5, 0, 10.5, 10).lies_in(10, 10, slack=1)
    assert not Box(-0.5, 0, 10, 10).lies_in(10, 10)
    assert not Box(0, 0, 12, 5).lies_in(10, 10, slack=1)
