"""Images made square, and JPEG files decoded small for it."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.data.decode import as_stored, decode, decode_grey, decode_square, to_square

from .png_files import png


def test_squash_by_area_is_the_mean_of_blocks():
    image = np.random.default_rng(0).integers(0, 256, (8, 12)).astype(np.uint8)
    expected = image.reshape(4, 2, 4, 3).mean((1, 3))
    assert np.abs(to_square(image, 4) - expected).max() <= 0.5


def test_an_image_of_the_right_size_is_unchanged(picture):
    image = picture(1, 32, 32)
    for resize in ("squash", "pad", "crop"):
        np.testing.assert_array_equal(to_square(image, 32, resize), image)


def test_growing_is_linear_whatever_the_interpolation():
    image = np.array([[0, 100], [100, 200]], np.uint8)
    expected = cv2.resize(image, (16, 16), interpolation=cv2.INTER_LINEAR)
    for interpolation in ("area", "linear", "cubic"):
        np.testing.assert_array_equal(to_square(image, 16, "squash", interpolation), expected)


def test_each_axis_by_its_own_rule():
    # wide and flat: the width shrinks by area, the height grows linearly
    image = np.tile(np.array([0, 100, 200, 40], np.uint8).repeat(10), (2, 1))
    np.testing.assert_array_equal(to_square(image, 4), np.tile(np.array([0, 100, 200, 40], np.uint8), (4, 1)))


def test_pad_keeps_the_whole_image_between_black_bands():
    image = np.full((20, 40), 200, np.uint8)
    square = to_square(image, 16, "pad")
    np.testing.assert_array_equal(square[4:12], 200)
    assert square[:4].max() == 0
    assert square[12:].max() == 0
    np.testing.assert_array_equal(to_square(image.T, 16, "pad"), square.T)


def test_crop_takes_the_middle():
    image = np.zeros((20, 60), np.uint8)
    image[:, 20:40] = 255
    np.testing.assert_array_equal(to_square(image, 10, "crop"), np.full((10, 10), 255))
    np.testing.assert_array_equal(to_square(image.T, 10, "crop"), np.full((10, 10), 255))


@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.integers(1, 64),
    st.sampled_from(["squash", "pad", "crop"]),
    st.sampled_from(["area", "linear", "cubic"]),
    st.integers(0, 255),
)
def test_any_shape_becomes_a_square_and_keeps_its_level(shape, size, resize, interpolation, level):
    square = to_square(np.full(shape, level, np.uint8), size, resize, interpolation)
    assert square.shape == (size, size)
    assert square.dtype == np.uint8
    assert set(np.unique(square)) <= ({level, 0} if resize == "pad" else {level})


def test_original_radiographs_shrink_to_the_small_ones(real_radiographs):
    originals = sorted((real_radiographs.parent / "original_sample").rglob("*.jpeg"))
    if not originals:
        pytest.skip("CXR_DATA_DIR holds no original_sample")
    for path in originals:
        small = real_radiographs / "train" / path.parent.name / path.name
        data = path.read_bytes()
        image = to_square(decode_grey(data, name=path.name), 224)
        assert np.abs(image.astype(int) - decode_square(data, 224, name=path.name)).mean() < 1
        expected = decode_grey(small.read_bytes(), name=small.name)
        # the small ones were encoded once more
        assert np.abs(image.astype(int) - expected).mean() < 3


@given(
    st.tuples(st.integers(260, 900), st.integers(260, 900)),
    st.sampled_from([64, 97]),
    st.sampled_from(["squash", "pad", "crop"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_a_jpeg_decoded_small_is_the_whole_one_made_small(shape, size, resize, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6)).astype(np.uint8)
    image = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    whole = to_square(decode_grey(data, name="a"), size, resize)
    small = decode_square(data, size, resize, name="a")
    side = max(shape) if resize == "pad" else min(shape)
    if side < 4 * size:
        np.testing.assert_array_equal(small, whole)
    assert np.abs(small.astype(int) - whole).mean() < 2.5
    assert small.shape == (size, size)


def test_a_large_jpeg_is_decoded_small(monkeypatch):
    data = cv2.imencode(".jpg", np.full((640, 900), 90, np.uint8))[1].tobytes()
    decoded = []
    imdecode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *a: decoded.append(imdecode(*a)) or decoded[-1])
    for size, resize, expected in [
        (32, "squash", (80, 113)),
        (80, "crop", (160, 225)),
        (81, "squash", (320, 450)),
        (110, "pad", (160, 225)),
        (161, "squash", (640, 900)),
    ]:
        assert decode_square(data, size, resize, name="a").shape == (size, size)
        assert decoded[-1].shape == expected, (size, resize)


def test_a_png_is_decoded_whole(picture):
    data = png(cv2.resize(picture(1), (800, 800)))
    np.testing.assert_array_equal(decode_square(data, 32, name="a"), to_square(decode_grey(data, name="a"), 32))


def test_a_turned_jpeg_keeps_its_aspect_ratio_when_it_is_decoded_small():
    data = cv2.imencode(".jpg", np.full((400, 900), 90, np.uint8))[1].tobytes()
    # an EXIF block that says: turn by 90 degrees
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert decode_grey(turned, name="a").shape == (900, 400)
    square = decode_square(turned, 90, "pad", name="a")
    np.testing.assert_array_equal(square, to_square(decode_grey(turned, name="a"), 90, "pad"))


def test_a_jpeg_in_colour_is_decoded_once_unless_its_colour_is_asked_for(monkeypatch):
    """Each image of a data set is decoded so twice on its way in: whole, to find damage, and as the square."""
    calls, decode_by_opencv = [], cv2.imdecode

    def counted(data, flags):
        calls.append(flags)
        return decode_by_opencv(data, flags)

    monkeypatch.setattr(cv2, "imdecode", counted)
    data = cv2.imencode(".jpg", np.full((64, 80, 3), (40, 100, 160), np.uint8))[1].tobytes()
    _, decoded = as_stored(data, name="a")
    assert len(calls) == 1
    decode_square(data, 32, name="a", decoded=decoded)
    assert len(calls) == 1
    assert decoded.colourfulness == decoded.colourfulness == pytest.approx(120, abs=4)
    assert len(calls) == 2


def count_decodes(monkeypatch):
    """The flags with which OpenCV is asked to decode from now on."""
    flags, imdecode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flag: flags.append(flag) or imdecode(data, flag))
    return flags


def test_grey_files_are_decoded_once(monkeypatch, picture, jpeg):
    files = (jpeg(1), png(picture(1)), png(cv2.merge([picture(1)] * 3)))
    for data in files:
        flags = count_decodes(monkeypatch)
        decoded = decode(data, name="a")
        square = decode_square(data, 32, name="a", decoded=decoded)
        assert len(flags) == 1
        monkeypatch.undo()
        np.testing.assert_array_equal(square, decode_square(data, 32, name="a"))


def test_the_square_of_a_decoded_image_is_that_of_the_file():
    data = cv2.imencode(".jpg", cv2.resize(np.eye(9, dtype=np.uint8) * 255, (700, 500)))[1].tobytes()
    decoded = decode(data, name="a")
    for resize in ("squash", "pad", "crop"):
        for size in (32, 100, 400):
            np.testing.assert_array_equal(
                decode_square(data, size, resize, name="a", decoded=decoded),
                decode_square(data, size, resize, name="a"),
            )
