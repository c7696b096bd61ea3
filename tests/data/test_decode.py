import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.data.decode import decode_grey, decode_square, to_square
from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.errors import UserError


def png(image, **options):
    return cv2.imencode(".png", image, **options)[1].tobytes()


def png_header(width, height):
    """A PNG of a huge size, without the pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_with_size(data, width, height):
    """`data` with another size in its frame header."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def test_grey_png_is_exact(picture):
    image = picture(1)
    decoded = decode_grey(png(image), name="a")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, image)


def test_grey_jpeg_is_near(picture, jpeg):
    assert np.abs(decode_grey(jpeg(1), name="a").astype(int) - picture(1)).max() <= 6


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_rgb_of_equal_channels_is_the_grey_itself(picture, kind):
    image = picture(2)
    data = cv2.imencode(kind, np.stack([image] * 3, -1), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    assert np.abs(decode_grey(data, name="a").astype(int) - image).max() <= (0 if kind == ".png" else 2)


def test_colour_is_weighted_as_luma():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)  # blue, green, red
    np.testing.assert_array_equal(decode_grey(png(colours), name="a"), [[29, 150, 76]])


def test_sixteen_bits_cover_the_full_range(picture):
    image = picture(3)
    np.testing.assert_array_equal(decode_grey(png(image.astype(np.uint16) * 257), name="a"), image)
    levels = np.array([[0, 128, 129, 385, 386, 65_406, 65_407, 65_535]], np.uint16)
    np.testing.assert_array_equal(decode_grey(png(levels), name="a"), [[0, 0, 1, 1, 2, 254, 255, 255]])
    colour = np.stack([image.astype(np.uint16) * 257] * 3, -1)
    np.testing.assert_array_equal(decode_grey(png(colour), name="a"), image)


def test_transparency_shows_black(picture):
    image = picture(4)
    alpha = np.full_like(image, 255)
    alpha[:, :10] = 0
    alpha[:, 10:20] = 51
    expected = np.rint(image * (alpha / 255)).astype(np.uint8)
    np.testing.assert_array_equal(decode_grey(png(np.stack([image] * 3 + [alpha], -1)), name="a"), expected)
    deep = np.stack([image.astype(np.uint16) * 257] * 3 + [alpha.astype(np.uint16) * 257], -1)
    assert np.abs(decode_grey(png(deep), name="a").astype(int) - expected).max() <= 1


def test_one_bit_and_palette_pngs():
    bits = np.array([[0, 255] * 8, [255, 0] * 8], np.uint8)
    np.testing.assert_array_equal(decode_grey(png(bits, params=[cv2.IMWRITE_PNG_BILEVEL, 1]), name="a"), bits)


def test_jpeg_variants(picture):
    image = picture(5)
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert np.abs(decode_grey(progressive, name="a").astype(int) - image).max() <= 6
    plain = cv2.imencode(".jpg", image)[1].tobytes()
    first = 4 + struct.unpack_from(">H", plain, 4)[0]
    commented = plain[:first] + b"\xff\xff\xfe\x00\x06abcd" + plain[first:]  # a fill byte before the marker is legal
    np.testing.assert_array_equal(decode_grey(commented + b"trailing", name="a"), decode_grey(plain, name="a"))


@given(st.data())
def test_a_cut_jpeg_is_always_refused(data):
    whole = cv2.imencode(".jpg", cv2.resize(np.eye(7, dtype=np.uint8) * 255, (90, 70)))[1].tobytes()
    kept = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UserError, match=r"broken\.jpeg"):
        decode_grey(whole[:kept], name="broken.jpeg")


@given(st.data())
def test_a_cut_or_changed_png_is_always_refused(data):
    whole = png(cv2.resize(np.eye(7, dtype=np.uint8) * 255, (90, 70)))
    at = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UserError, match=r"broken\.png"):
        decode_grey(whole[:at], name="broken.png")
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UserError, match=r"broken\.png"):
        decode_grey(bytes(changed), name="broken.png")


@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_garbage_is_refused(tail, head):
    with pytest.raises(UserError, match="rubbish"):
        decode_grey(head + tail, name="rubbish")


def test_damaged_tables_are_refused(jpeg):
    data = bytearray(jpeg(1))
    tables = data.index(b"\xff\xc4")
    data[tables + 5 : tables + 21] = b"\xff" * 16  # impossible lengths of Huffman codes
    with pytest.raises(UserError, match="odd is damaged and cannot be decoded"):
        decode_grey(bytes(data), name="odd")


def test_a_text_file_is_told_as_such():
    with pytest.raises(UserError, match=r"notes\.jpeg is no JPEG, PNG or DICOM file by its content"):
        decode_grey(b"dear diary", name="notes.jpeg")


def test_huge_images_are_refused_before_anything_is_allocated(jpeg):
    for data in (png_header(30_000, 30_000), jpeg_with_size(jpeg(1), 30_000, 30_000)):
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match=r"big is 30,000 x 30,000 pixels; .* 100 megapixels"):
                decode_grey(data, name="big")
            assert tracemalloc.get_traced_memory()[1] < 10**6
        finally:
            tracemalloc.stop()


def test_an_empty_size_is_refused(jpeg):
    for data in (png_header(0, 10), jpeg_with_size(jpeg(1), 10, 0)):
        with pytest.raises(UserError, match="flat"):
            decode_grey(data, name="flat")


def test_too_many_bytes_are_refused():
    with pytest.raises(UserError, match="images may have up to 64 MiB"):
        decode_grey(b"\xff\xd8" + bytes(MAX_BYTES), name="a")


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
