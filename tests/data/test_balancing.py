import numpy as np
import pytest
import scipy.ndimage

from cxr_jax.data.balancing import (
    balance_as_barnett,
    enlarge,
    flip_left_to_right,
    flip_top_to_bottom,
    rotate,
)
from cxr_jax.images.image_set import ImageSet
from cxr_jax.vocabulary import NORMAL, PNEUMONIA


def image_set(normals, pneumonia, size=4):
    count = normals + pneumonia
    generator = np.random.default_rng(0)
    # normals first, one pneumonia between them, so that rows and ordinal numbers of normals differ
    labels = np.array([NORMAL] * normals + [PNEUMONIA] * pneumonia, np.int32)
    labels = np.roll(labels, 1)
    return ImageSet(
        images=generator.integers(0, 256, (count, size, size)).astype(np.uint8),
        labels=labels,
        ids=np.arange(100, 100 + count, dtype=np.int32),
        files=tuple(f"f{number}" for number in range(count)),
        groups=tuple(f"g{number}" for number in range(count)),
        subtypes=tuple("normal" if label == NORMAL else "virus" for label in labels),
    )


def test_the_study_s_numbers():
    balanced = balance_as_barnett(image_set(1341, 3875), first_id=5856)
    assert np.bincount(balanced.labels).tolist() == [3282, 3875]
    assert len(balanced) == 7157


@pytest.mark.parametrize(
    ("normals", "expected"), [(1207, 3014), (1200, 3000), (900, 2400), (600, 1800), (10, 30), (0, 0)]
)
def test_fewer_normals_by_the_same_rule(normals, expected):
    balanced = balance_as_barnett(image_set(normals, 5), first_id=10_000)
    assert np.bincount(balanced.labels, minlength=2).tolist() == [expected, 5]


def test_which_image_is_changed_how():
    given = image_set(1341, 10)
    balanced = balance_as_barnett(given, first_id=5000)
    normals = np.flatnonzero(given.labels == NORMAL)
    np.testing.assert_array_equal(balanced.images[: len(given)], given.images)
    np.testing.assert_array_equal(balanced.ids[: len(given)], given.ids)
    copies = balanced.images[len(given) :]
    plan = [
        (enlarge, "enlarged", normals[:600]),
        (flip_top_to_bottom, "upside-down", normals[:600]),
        (rotate, "rotated", normals[600:1200]),
        (flip_left_to_right, "mirrored", normals[1200:]),
    ]
    position = 0
    for kind, (change, word, rows) in enumerate(plan, start=1):
        for row in rows:
            np.testing.assert_array_equal(copies[position], change(given.images[row]))
            place = len(given) + position
            assert balanced.files[place] == f"f{row}#{word}"
            assert balanced.groups[place] == f"g{row}"
            assert balanced.subtypes[place] == "normal"
            assert balanced.ids[place] == kind * 5000 + given.ids[row]
            position += 1
    assert position == len(copies) == 1941


def test_ids_are_unique_and_int32():
    balanced = balance_as_barnett(image_set(1341, 10), first_id=5000)
    assert balanced.ids.dtype == np.int32
    assert len(np.unique(balanced.ids)) == len(balanced)
    assert balanced.labels.dtype == np.int32
    assert balanced.images.dtype == np.uint8


def test_flips_turn_the_axis_they_name():
    image = np.array([[1, 2], [3, 4]], np.uint8)
    np.testing.assert_array_equal(flip_top_to_bottom(image), [[3, 4], [1, 2]])
    np.testing.assert_array_equal(flip_left_to_right(image), [[2, 1], [4, 3]])


def smooth(size):
    return scipy.ndimage.gaussian_filter(np.random.default_rng(1).uniform(0, 255, (size, size)), 3).astype(np.uint8)


def sampled(image, rows, columns):
    """`image` at fractional places, linearly, 0 outside."""
    return scipy.ndimage.map_coordinates(image.astype(float), [rows, columns], order=1, mode="constant", cval=0.0)


@pytest.mark.parametrize("size", [31, 64])
def test_enlarging_shows_the_central_part(size):
    image = smooth(size)
    middle = (size - 1) / 2
    rows, columns = (np.mgrid[:size, :size] - middle) / 1.3 + middle
    assert np.abs(enlarge(image) - sampled(image, rows, columns)).max() <= 2


@pytest.mark.parametrize("size", [31, 64])
def test_rotation_is_counterclockwise_by_20_degrees_with_black_corners(size):
    image = smooth(size)
    middle = (size - 1) / 2
    y, x = np.mgrid[:size, :size] - middle
    angle = np.deg2rad(20)
    # a counterclockwise turn on a screen, whose y goes down, takes each pixel from a place turned clockwise
    columns = x * np.cos(angle) - y * np.sin(angle) + middle
    rows = x * np.sin(angle) + y * np.cos(angle) + middle
    expected = sampled(image, rows, columns)
    inside = (np.minimum(rows, columns) > 1) & (np.maximum(rows, columns) < size - 2)
    turned = rotate(image)
    assert inside.mean() > 0.6
    assert np.abs(turned - expected)[inside].max() <= 2
    assert turned[0, 0] == turned[-1, -1] == 0


def test_rotation_agrees_with_scipy_s_own():
    image = smooth(64)
    theirs = scipy.ndimage.rotate(image, 20, reshape=False, order=1)
    assert np.abs(rotate(image)[8:-8, 8:-8].astype(int) - theirs[8:-8, 8:-8])[16:-16, 16:-16].max() <= 3


def test_unequal_fields_are_refused():
    with pytest.raises(ValueError, match="lengths"):
        ImageSet(
            np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int32), np.zeros(2, np.int32), ("a",), ("g", "h"), ("", "")
        )
