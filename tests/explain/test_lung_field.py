import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.data.phantoms.anatomy import draw_chest, draw_person
from cxr_jax.data.phantoms.canvas import Canvas
from cxr_jax.data.phantoms.exposure import expose
from cxr_jax.data.phantoms.opacities import diffuse_opacity, focal_opacity
from cxr_jax.explain.lung_field import USUAL, Outline, draw_field, fit_outlines, lung_fields

SIDE = 96


def phantom(number):
    """A phantom as the network sees it, uint8 [SIDE, SIDE], and the lungs that were drawn, bool [2, SIDE, SIDE]."""
    body, generator = draw_person(np.random.default_rng([7, number])), np.random.default_rng([8, number])
    canvas = Canvas(
        220,
        round(220 * generator.uniform(0.95, 1.45)),
        angle=generator.normal(0, 3),
        scale=generator.uniform(0.98, 1.25),
        shift=(generator.normal(0, 0.04), generator.normal(0, 0.04)),
    )
    chest = draw_chest(canvas, body, generator)
    opacity = (None, focal_opacity, diffuse_opacity)[number % 3]
    density = chest.density if opacity is None else chest.density + opacity(canvas, chest, 0.7, generator)
    image = cv2.resize(expose(canvas, density, generator), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    sides = [cv2.resize(side, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 0.5 for side in chest.lung_sides]
    return image, np.stack(sides)


@pytest.fixture(scope="module")
def phantoms():
    images, sides = zip(*(phantom(number) for number in range(30)), strict=True)
    return np.stack(images), np.stack(sides)


def dice(first, second):
    return 2 * np.sum(first & second, axis=(1, 2)) / (np.sum(first, axis=(1, 2)) + np.sum(second, axis=(1, 2)))


def test_the_field_covers_the_lungs_that_phantoms_draw(phantoms):
    images, sides = phantoms
    lungs, fields = sides.any(axis=1), lung_fields(images)
    assert fields.shape == images.shape and fields.dtype == bool
    covered = np.sum(fields & lungs, axis=(1, 2)) / np.sum(lungs, axis=(1, 2))
    assert covered.mean() > 0.88
    assert covered.min() > 0.65
    assert dice(fields, lungs).mean() > 0.88
    # An outline that stays where chests usually are does worse.
    usual = np.broadcast_to(draw_field(USUAL, SIDE), images.shape)
    assert dice(fields, lungs).mean() > dice(usual, lungs).mean() + 0.02


def test_the_field_moves_with_the_chest(phantoms):
    images, _ = phantoms
    before = np.array(fit_outlines(images))
    moved = np.stack([np.roll(image, 6, axis=1) for image in images])
    after = np.array(fit_outlines(moved))
    assert np.mean(after[:, 0] - before[:, 0]) == pytest.approx(6 / SIDE, abs=0.03)


def test_a_white_lung_stays_inside(phantoms):
    images, sides = phantoms
    white = images.copy()
    white[sides[:, 0]] = 215
    fields = lung_fields(white)
    covered = np.sum(fields & sides[:, 0], axis=(1, 2)) / np.sum(sides[:, 0], axis=(1, 2))
    assert covered.mean() > 0.75


def test_a_plain_image_has_nearly_the_usual_field():
    found = fit_outlines(np.full((1, 40, 40), 9, np.uint8))[0]
    np.testing.assert_allclose(found, USUAL, atol=0.03)


@given(
    st.builds(Outline, st.floats(0.42, 0.58), st.floats(0.02, 0.22), st.floats(0.7, 0.98), st.floats(0.26, 0.44)),
    st.sampled_from([56, 224]),
)
def test_a_field_lies_inside_its_measures_and_is_symmetric(outline, side):
    field = draw_field(outline, side)
    rows, columns = np.nonzero(field)
    assert 0.1 < field.mean() < 0.65
    pixel = 1 / side
    assert (rows.min() + 1) / side >= outline.top and rows.max() / side <= outline.bottom
    assert (columns.min() + 1) / side >= outline.middle - outline.half_width - pixel
    assert columns.max() / side <= outline.middle + outline.half_width + pixel
    centred = draw_field(outline._replace(middle=0.5), side)
    np.testing.assert_array_equal(centred, centred[:, ::-1])
