import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.data.decode import decode_grey, to_square
from cxr_jax.data.quality.markers import find_markers, marker_zone
from cxr_jax.data.quality.measures import BRIGHT, BRIGHTEST, DARKEST, MEASURES, SIDE, measure_quality
from cxr_jax.data.quality.symmetry import LARGEST_ANGLE, find_symmetry


def turned(image, angle):
    """The image turned counter-clockwise about its middle."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def two_ellipses(angle=0.0, shift=0):
    """Two dark lungs in a bright trunk, exactly symmetric about an axis that is tilted and shifted."""
    image = np.full((SIDE, SIDE), 190, np.uint8)
    for side in (-1, 1):
        cv2.ellipse(image, (112 + shift + side * 45, 110), (30, 65), 0, 0, 360, 60, -1)
    return turned(cv2.GaussianBlur(image, (0, 0), 2), angle)


def test_every_measure_of_a_known_picture_is_exact():
    image = np.full((448, 896), 100, np.uint8)
    image[:112] = 255
    image[112:168] = 220
    image[-112:] = 0
    quality = measure_quality(image)
    assert set(quality) == set(MEASURES)
    assert quality["mean"] == pytest.approx((255 + 220 / 2 + 100 * 1.5) / 4)
    values = np.repeat([255, 220, 100, 0], [2, 1, 3, 2])
    assert quality["contrast"] == pytest.approx(values.std(), rel=1e-6)
    assert quality["bright_area"] == pytest.approx(3 / 8)
    assert quality["bright_clipped"] == quality["dark_clipped"] == pytest.approx(1 / 4)
    assert quality["pixels"] == 448 * 896
    assert quality["aspect"] == 2
    assert quality["border_markers"] == 0
    assert quality["symmetry"] == pytest.approx(1, abs=0.01)
    assert quality["rotation"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_without_contrast_has_finite_measures(level):
    quality = measure_quality(np.full((50, 70), level, np.uint8))
    assert quality["mean"] == level
    for name in ("contrast", "sharpness", "rotation", "symmetry", "border_markers"):
        assert quality[name] == 0
    assert quality["bright_clipped"] == (level >= BRIGHTEST)
    assert quality["bright_area"] == (level >= BRIGHT)
    assert quality["dark_clipped"] == (level <= DARKEST)


@settings(max_examples=30)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 255))
def test_any_picture_gives_finite_measures_within_their_bounds(height, width, seed, low, high):
    random = np.random.default_rng(seed)
    image = random.integers(min(low, high), max(low, high) + 1, (height, width)).astype(np.uint8)
    quality = measure_quality(image)
    assert all(np.isfinite(value) and isinstance(value, float) for value in quality.values())
    for name in ("bright_area", "bright_clipped", "dark_clipped", "border_markers"):
        assert 0 <= quality[name] <= 1
    assert quality["bright_clipped"] <= quality["bright_area"]
    assert 0 <= quality["mean"] <= 255
    assert 0 <= quality["rotation"] <= LARGEST_ANGLE + 1
    assert -1 <= quality["symmetry"] <= 1
    assert quality["sharpness"] >= 0
    mirrored = measure_quality(np.ascontiguousarray(image[:, ::-1]))
    assert mirrored["mean"] == pytest.approx(quality["mean"], abs=0.5)
    assert mirrored["pixels"] == quality["pixels"]


def test_more_exposure_moves_brightness_and_clipping(chests):
    for chest in chests:
        plain = measure_quality(chest)
        over = measure_quality(np.clip(chest.astype(int) + 60, 0, 255).astype(np.uint8))
        under = measure_quality(np.clip(chest.astype(int) - 60, 0, 255).astype(np.uint8))
        assert under["mean"] < plain["mean"] < over["mean"]
        assert plain["bright_area"] < over["bright_area"]
        assert plain["bright_clipped"] <= over["bright_clipped"]
        assert plain["dark_clipped"] < under["dark_clipped"]
        flat = measure_quality((128 + (chest.astype(float) - 128) / 2).astype(np.uint8))
        assert flat["contrast"] == pytest.approx(plain["contrast"] / 2, rel=0.02)


def test_blur_lowers_sharpness_step_by_step_and_noise_raises_it(chests, noise):
    for chest in chests:
        steps = [chest, *(cv2.GaussianBlur(chest, (0, 0), sigma) for sigma in (1.5, 3, 6))]
        values = [measure_quality(image)["sharpness"] for image in steps]
        assert values == sorted(values, reverse=True)
        assert values[-1] < values[0] / 3
        assert measure_quality(noise)["sharpness"] > 5 * values[0]


def test_sharpness_does_not_follow_brightness_or_contrast(chests):
    for chest in chests:
        dimmed = (40 + chest.astype(float) / 2).round().astype(np.uint8)
        assert measure_quality(dimmed)["sharpness"] == pytest.approx(measure_quality(chest)["sharpness"], rel=0.1)


@pytest.mark.parametrize("angle", [-20, -13, -5, -1, 0, 1, 5, 13, 20])
@pytest.mark.parametrize("shift", [-15, 0, 15])
def test_a_symmetric_picture_gives_its_angle(angle, shift):
    symmetry = find_symmetry(two_ellipses(angle, shift))
    assert symmetry.angle == pytest.approx(angle, abs=0.5)
    assert symmetry.correlation > 0.85


@pytest.mark.parametrize("angle", [-12, -6, 6, 12])
def test_a_turned_phantom_gives_the_angle_it_was_turned_by(chests, angle):
    squares = [to_square(chest, SIDE) for chest in chests]
    change = [find_symmetry(turned(square, angle)).angle - find_symmetry(square).angle for square in squares]
    assert np.median(change) == pytest.approx(angle, abs=0.5)
    assert np.mean(np.abs(np.array(change) - angle) < 2) >= 0.9


def test_a_mirrored_picture_tilts_the_other_way(chests):
    for chest in chests:
        square = to_square(chest, SIDE)
        one, other = find_symmetry(square), find_symmetry(np.ascontiguousarray(square[:, ::-1]))
        assert other.angle == pytest.approx(-one.angle, abs=0.3)
        assert other.correlation == pytest.approx(one.correlation, abs=0.01)


def test_noise_and_a_half_have_little_symmetry(noise, chests):
    assert measure_quality(noise)["symmetry"] < 0.3
    whole = [measure_quality(chest)["symmetry"] for chest in chests]
    half = [measure_quality(chest[:, : chest.shape[1] // 2])["symmetry"] for chest in chests]
    assert np.median(half) < np.median(whole) - 0.2


def lettered(place, level=235, background=40):
    image = np.full((SIDE, SIDE), background, np.uint8)
    plain = image.copy()
    cv2.putText(image, "R", place, cv2.FONT_HERSHEY_DUPLEX, 0.6, level, 1, cv2.LINE_AA)
    return image, image > plain


def test_a_letter_near_the_border_is_found_where_it_is():
    image, drawn = lettered((12, 60))
    found = find_markers(image)
    assert found.any()
    assert not (found & ~drawn).any()
    # the faint edge of the strokes is not counted
    assert found.sum() > 0.3 * drawn.sum()
    quality = measure_quality(image)
    assert quality["border_markers"] == pytest.approx(found.sum() / marker_zone(SIDE).sum())
    two = image.copy()
    cv2.putText(two, "AP", (180, 30), cv2.FONT_HERSHEY_DUPLEX, 0.6, 235, 1, cv2.LINE_AA)
    assert measure_quality(two)["border_markers"] > quality["border_markers"]


def test_a_letter_is_not_over_exposure():
    assert measure_quality(lettered((12, 60), level=255)[0])["bright_area"] == 0


def test_what_is_no_letter_near_the_border_is_not_found():
    in_the_middle = lettered((104, 120))[0]
    faint = lettered((12, 60), level=100)[0]
    on_white = lettered((12, 60), level=255, background=230)[0]
    bar = np.full((SIDE, SIDE), 40, np.uint8)
    bar[:, 10:14] = 240
    plate = np.full((SIDE, SIDE), 40, np.uint8)
    plate[10:40, 10:40] = 240
    for image in (in_the_middle, faint, on_white, bar, plate):
        assert not find_markers(image).any()


def test_originals_and_their_small_copies_measure_alike(real_radiographs):
    """Measures must compare between a training file of 224 pixels and an original that is given to `predict`."""
    originals = sorted((real_radiographs.parent / "original_sample").glob("*/*.jpeg"))[::5]
    if not originals:
        pytest.skip("no originals beside the real radiographs")
    pairs = []
    for path in originals:
        small = real_radiographs / "train" / path.parent.name / path.name
        pairs.append([measure_quality(decode_grey(file.read_bytes(), name=file.name)) for file in (path, small)])
    for name, largest in {"mean": 1, "contrast": 1, "bright_area": 0.01, "rotation": 0.5, "symmetry": 0.02}.items():
        assert max(abs(one[name] - other[name]) for one, other in pairs) < largest
    ratio = [one["sharpness"] / other["sharpness"] for one, other in pairs]
    assert 0.9 < min(ratio) <= max(ratio) < 1.3
