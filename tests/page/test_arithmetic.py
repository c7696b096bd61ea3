"""What the page computes, held against what training and prediction compute."""

import json

import cv2
import numpy as np
import pytest

from cxr_jax.data.decode import to_square
from cxr_jax.data.phantoms.folder import draw_phantom
from cxr_jax.data.quality.measures import MEASURES, measure_quality
from cxr_jax.explain.overlay import OPACITY, overlay, place_on_original
from cxr_jax.page.record import heat_colours
from tests.browser import MISSING, PROGRAM
from tests.page.conftest import array_of

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

TO_SQUARE = """
    const {{ toSquare }} = await load("resampling");
    const image = {{ grey: await bytes("{address}"), width: {width}, height: {height} }};
    return coded(toSquare(image, {size}, "{resize}", "{interpolation}").grey);
"""


@pytest.mark.parametrize("interpolation", ["area", "linear", "cubic"])
@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_a_square_is_that_of_training(modules, resize, interpolation):
    random = np.random.default_rng(3)
    sizes = [(37, 211), (448, 448), (224, 500), (672, 224), *random.integers(20, 900, (3, 2)).tolist()]
    for height, width in sizes:
        noise = random.integers(0, 256, (height, width), dtype=np.uint8)
        image = cv2.GaussianBlur(noise, (0, 0), 1.2) if width % 2 else noise
        given = {"resize": resize, "interpolation": interpolation, "size": 224, "width": width, "height": height}
        found = modules.run(TO_SQUARE.format(address=modules.write("image", image), **given))
        off = np.abs(array_of(found, np.uint8, (224, 224)).astype(int) - to_square(image, 224, resize, interpolation))
        # OpenCV interpolates whole pixels in steps of 1/2048 of a pixel, and twice where one axis shrinks and one grows
        assert off.max() <= (1 if interpolation == "area" else 2), (height, width)
        assert np.mean(off > 0) < (0.002 if interpolation == "area" and min(height, width) >= 224 else 0.2)


@pytest.fixture(scope="module")
def pictures():
    """Phantoms of all kinds, one without contrast, one turned, one with a large letter, one blurred."""
    found = [
        draw_phantom(kind, 5 + i, 70 + i, image_size_range=(260, 420))
        for i, kind in enumerate(("normal", "bacteria", "virus"))
    ]
    height, width = found[0].shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 11, 1)
    turned = cv2.warpAffine(found[0], turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    lettered = cv2.putText(found[1].copy() // 2, "L", (12, 60), cv2.FONT_HERSHEY_DUPLEX, 1.4, 255, 3)
    random = np.random.default_rng(0)
    flat, noise = np.full((300, 240), 77, np.uint8), random.integers(0, 256, (250, 310), dtype=np.uint8)
    return [*found, turned, lettered, cv2.GaussianBlur(found[2], (0, 0), 4), flat, noise]


def test_every_measure_of_quality_is_that_of_the_trainer(modules, pictures):
    markers = []
    for image in pictures:
        height, width = image.shape
        found = modules.run(f"""
            const {{ measureQuality }} = await load("quality");
            const grey = await bytes("{modules.write("image", image)}");
            return measureQuality({{ grey, width: {width}, height: {height} }});
        """)
        expected = measure_quality(image)
        assert list(found) == list(MEASURES)
        markers.append(expected["border_markers"])
        for name, value in expected.items():
            # OpenCV turns an image in steps of 1/32 pixel, and counts brightness in whole levels
            loose = {"rotation": 0.15, "symmetry": 2e-3}.get(name, 2e-3 * max(abs(value), 0.05))
            assert found[name] == pytest.approx(value, abs=loose), (name, image.shape)
    assert max(markers) > 0


def test_a_heat_map_has_the_colours_and_the_place_that_it_has_elsewhere(modules):
    image = draw_phantom("virus", 1, 2, image_size_range=(90, 120))
    height, width = image.shape
    heat = np.random.default_rng(0).random((4, 3), np.float32)
    for resize in ("squash", "pad", "crop"):
        found = modules.run(f"""
            const {{ placedHeat }} = await load("resampling");
            const {{ draw, parsed }} = await load("picture");
            const heat = new Float32Array((await bytes("{modules.write("heat", heat)}")).buffer);
            const grey = await bytes("{modules.write("image", image)}");
            const preview = {{ grey, width: {width}, height: {height} }};
            const canvas = document.createElement("canvas");
            const placed = placedHeat(heat, 3, 4, {width}, {height}, "{resize}");
            draw(canvas, preview, placed, {OPACITY}, parsed({json.dumps(heat_colours())}));
            return coded(canvas.getContext("2d").getImageData(0, 0, {width}, {height}).data);
        """)
        expected = overlay(image, place_on_original(heat, height, width, resize))
        off = array_of(found, np.uint8, (height, width, 4))[..., :3].astype(int) - expected
        assert np.abs(off).max() <= 2, resize
        assert np.ptp(expected.astype(int), axis=2).max() > 60


def test_numbers_are_rounded_and_written_as_python_does(modules):
    values = [0.5, 1.5, 2.5, -0.5, 254.49999, 3.0]
    rounded = modules.run(f'const {{ roundHalfEven }} = await load("numbers"); return {values}.map(roundHalfEven);')
    assert rounded == [round(value) for value in values]
    values = [0, 0.000012, 0.0431, 0.5, 0.9999, 1.04, 9.96, 10.5, 11.5, 123.4, -0.031, 2.5e-4, 0.1]
    written = modules.run(f'const {{ measureText }} = await load("numbers"); return {values}.map(measureText);')
    assert written == [f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}" for value in values]
