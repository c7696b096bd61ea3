"""What is read of a file: grey values, and why some files are refused."""

import struct
import tracemalloc
from functools import partial

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.data.decode import decode, decode_grey, decode_square
from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.errors import UserError

from .dicom.drawn import dicom
from .png_files import exif, png, png_header, with_chunk


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


def test_many_rows_are_laid_over_black_as_few_are():
    image = np.random.default_rng(0).integers(0, 2**16, (600, 20, 4)).astype(np.uint16)
    grey = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2GRAY)
    laid = np.rint(grey * (image[..., 3] / 65_535)).astype(int)
    found = decode_grey(png(image), name="a")
    np.testing.assert_array_equal(found, (laid * 255 + 32_767) // 65_535)


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


def test_colour_is_what_channels_differ_by():
    grey = np.random.default_rng(0).integers(0, 256, (64, 80)).astype(np.uint8)
    colour = np.zeros((64, 80, 3), np.uint8)
    colour[...] = (40, 100, 160)
    for suffix in (".png", ".jpg"):
        for image, expected, tolerance in ((grey, 0, 0), (cv2.merge([grey] * 3), 0, 1), (colour, 120, 4)):
            data = cv2.imencode(suffix, image)[1].tobytes()
            assert decode(data, name="a").colourfulness == pytest.approx(expected, abs=tolerance)
    deep = png(colour.astype(np.uint16) * 257)
    assert decode(deep, name="a").colourfulness == pytest.approx(120, abs=1e-6)
    film = dicom((grey.astype("<u2")) * 16)
    assert decode(film, name="a").colourfulness == 0


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 200), (200, 7), (3, 3, 3), (1, 200, 3)])
def test_the_smallest_images_are_decoded(suffix, shape):
    decoded = decode(cv2.imencode(suffix, np.full(shape, 90, np.uint8))[1].tobytes(), name="a")
    assert decoded.grey.shape == shape[:2]
    assert decoded.colourfulness <= 1
    assert abs(int(decoded.grey[0, 0]) - 90) <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_png_is_obeyed_as_that_of_a_jpeg(picture, orientation, order):
    """What is right is taken from what the JPEG decoder does with the same tag."""
    image = picture(7)
    block = exif(orientation, order)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    jpeg = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + data[2:]
    expected = decode_grey(jpeg, name="a").astype(int)
    for start in (b"", b"Exif\0\0"):
        found = decode_grey(with_chunk(png(image), b"eXIf", start + block), name="a")
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 2
    colour = np.stack([image] * 3 + [np.full_like(image, 255)], -1)
    for other in (png(colour), png(image.astype(np.uint16) * 257)):
        np.testing.assert_array_equal(decode_grey(with_chunk(other, b"eXIf", block), name="a"), found)


@pytest.mark.parametrize(
    "block",
    [b"", b"MM\0*", exif(0), exif(9), exif(6, tag=0x0113), exif(6, kind=4), exif(6)[:20], b"XX\0*" + exif(6)[4:]],
)
def test_an_orientation_that_says_nothing_leaves_the_image_upright(picture, block):
    data = with_chunk(png(picture(1)), b"eXIf", block)
    np.testing.assert_array_equal(decode_grey(data, name="a"), picture(1))


def test_an_exif_block_of_many_entries_ends():
    block = b"MM\0*" + struct.pack(">LH", 8, 65_535) + bytes(12) * 70_000
    assert decode_grey(with_chunk(png(np.zeros((4, 6), np.uint8)), b"eXIf", block), name="a").shape == (4, 6)


def deep(highest):
    """A ramp of 16 bits up to `highest`."""
    return np.linspace(0, highest, 40).round().astype(np.uint16).reshape(4, 10)


@pytest.mark.parametrize(
    ("highest", "stated", "white"),
    [
        (4095, None, 4095),
        (3560, None, 4095),
        (1023, None, 4095),  # one rule for all of a set: its darker images are not brightened
        (4096, None, 65_535),
        (16_000, None, 65_535),
        (65_535, None, 65_535),
        (3560, 12, 4095),
        (1000, 10, 1023),
        (9000, 14, 16_383),
        (200, 8, 255),
        (65_535, 12, 65_535),  # scaled to 16 bits, as the PNG specification asks
        (5000, 12, 65_535),
        (3560, 16, 4095),
        (3560, 0, 4095),
    ],
)
def test_the_bits_of_a_16_bit_png(highest, stated, white):
    image = deep(highest)
    data = png(image) if stated is None else with_chunk(png(image), b"sBIT", bytes([stated]))
    expected = np.floor(255 * image.astype(float) / white + 0.5)
    np.testing.assert_array_equal(decode_grey(data, name="a"), expected)
    colour = png(np.stack([image] * 3, -1))
    colour = colour if stated is None else with_chunk(colour, b"sBIT", bytes([stated] * 3))
    np.testing.assert_array_equal(decode_grey(colour, name="a"), expected)


@pytest.mark.parametrize(
    ("image", "stated", "remark"),
    [
        (deep(3560), None, "16-bit image without a value above 3,560: read as one of 12 bits, in which 4,095 is white"),
        (deep(16_000), None, "16-bit image without a value above 16,000, where 65,535 is white: it comes out dark"),
        (deep(3560), 12, None),
        (deep(40_000), None, None),
        (deep(40_000).astype(np.uint8), None, None),
    ],
)
def test_a_16_bit_png_that_hardly_uses_its_range_is_remarked_on(image, stated, remark):
    data = png(image) if stated is None else with_chunk(png(image), b"sBIT", bytes([stated]))
    assert decode(data, name="a").remark == remark


@pytest.mark.parametrize(
    ("marker", "bits", "words"),
    [
        (b"\xff\xc1", 12, "a is a JPEG of 12 bits a sample, which is not read: convert it to PNG"),
        (b"\xff\xc2", 12, "a is a JPEG of 12 bits a sample, which is not read"),
        (b"\xff\xc3", 16, "a is a lossless JPEG of 16 bits a sample, which is not read"),
        (b"\xff\xc3", 8, "a is a lossless JPEG of 8 bits a sample"),
        (b"\xff\xf7", 12, "a is a JPEG-LS file of 12 bits a sample, which is not read"),
        (b"\xff\xc0", 77, "a is a damaged or truncated JPEG"),
    ],
)
def test_a_sound_jpeg_of_another_kind_is_not_called_damaged(jpeg, marker, bits, words):
    data = bytearray(jpeg(1))
    at = data.index(b"\xff\xc0")
    data[at : at + 2], data[at + 4] = marker, bits
    for read in (decode_grey, partial(decode_square, size=16)):
        with pytest.raises(UserError, match=words):
            read(bytes(data), name="a")
