"""Every way in which pixels are encoded gives what they are without a code, whichever decoder is installed."""

import io
import struct

import jpeg_ls
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from cxr_jax.data.decode import decode_grey
from cxr_jax.errors import UserError

from .drawn import compressed, dataset, dicom
from .frames import HIGH_THROUGHPUT, HIGH_THROUGHPUT_SIGNED, LOSSLESS, TWELVE_BITS

BASELINE = "1.2.840.10008.1.2.4.50"
EXTENDED, PROCESS_14, SV1 = "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
LS, NEAR_LS = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
J2K, LOSSY_J2K, HTJ2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.201"

UNSIGNED = np.add.outer(np.arange(30) * 60, np.arange(40) * 50).astype("<u2")
SIGNED = (UNSIGNED.astype(int) - 2048).astype("<i2")
BYTES = (UNSIGNED // 16).astype("u1")

# openjpeg encodes no image with a side below 32
LARGE = np.add.outer(np.arange(40) * 50, np.arange(64) * 30).astype("<u2")
LARGE_SIGNED = (LARGE.astype(int) - 2048).astype("<i2")

WINDOW = {"WindowCenter": "700", "WindowWidth": "2500"}


def read(data):
    return decode_grey(data, name="film.dcm")


def only(monkeypatch, plugin):
    """Let pydicom know of one decoder alone, or of none."""
    monkeypatch.setattr(type(get_decoder(J2K)), "available_plugins", property(lambda self: (plugin,) * bool(plugin)))


def j2k(pixels, bits=12):
    """A lossless codestream of JPEG 2000 by openjpeg."""
    made = dataset(pixels, bits=bits)
    made.compress(J2K, generate_instance_uid=False)
    return next(generate_frames(made.PixelData, number_of_frames=1))


def jp2(pixels):
    """The same by Pillow, in the boxes of a file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False)
    assert stream.getvalue()[4:8] == b"jP  "
    return stream.getvalue()


def ls(pixels, lossy=0):
    """A stream of JPEG-LS, of samples that have no sign."""
    return bytes(jpeg_ls.encode_array(pixels, lossy_error=lossy))


@pytest.mark.parametrize("plugin", ["pylibjpeg", "pillow"])
@pytest.mark.parametrize(
    ("pixels", "bits"), [(LARGE, 12), (LARGE_SIGNED, 12), ((LARGE // 16).astype("u1"), 8), (LARGE * 16, 16)]
)
@pytest.mark.parametrize("window", [{}, WINDOW])
def test_jpeg_2000(monkeypatch, plugin, pixels, bits, window):
    data = compressed(pixels, j2k(pixels, bits), J2K, bits=bits, **window)
    only(monkeypatch, plugin)
    np.testing.assert_array_equal(read(data), read(dicom(pixels, bits=bits, **window)))


@pytest.mark.parametrize("plugin", ["pylibjpeg", "pillow"])
def test_a_stream_and_a_header_that_disagree_about_the_sign(monkeypatch, plugin):
    """The values count where both can hold them; bits of negative numbers are told from them; else it is refused."""
    only(monkeypatch, plugin)
    small = LARGE // 2
    stream = j2k(small.astype("<i2"), bits=12)
    assert stream[42] & 0x80
    np.testing.assert_array_equal(read(compressed(small, stream, J2K, bits=12)), read(dicom(small, bits=12)))
    bits_of_signed = (LARGE_SIGNED.astype(int) & 0xFFF).astype("<u2")
    stream = j2k(bits_of_signed, bits=12)
    assert not stream[42] & 0x80
    np.testing.assert_array_equal(
        read(compressed(LARGE_SIGNED, stream, J2K, bits=12)), read(dicom(LARGE_SIGNED, bits=12))
    )
    with pytest.raises(UserError, match="negative pixels"):
        read(compressed(LARGE, j2k(LARGE_SIGNED, bits=12), J2K, bits=12))


@pytest.mark.parametrize("plugin", ["pylibjpeg", "pillow"])
def test_boxes_around_a_codestream_and_bytes_behind_its_end(monkeypatch, plugin):
    only(monkeypatch, plugin)
    expected = read(dicom(LARGE))
    boxed = jp2(LARGE)
    np.testing.assert_array_equal(read(compressed(LARGE, boxed, J2K)), expected)
    at = boxed.index(b"jp2c") - 4
    long_box = boxed[:at] + struct.pack(">L4sQ", 1, b"jp2c", len(boxed) - at + 8) + boxed[at + 8 :]
    last_box = boxed[:at] + struct.pack(">L", 0) + boxed[at + 4 :]
    for data in (long_box, last_box):
        np.testing.assert_array_equal(read(compressed(LARGE, data, J2K)), expected)
    plain = boxed[at + 8 :]
    start = plain.index(b"\xff\x90")
    open_tile = plain[: start + 6] + bytes(4) + plain[start + 10 :]
    for data in (plain + b"\0", plain + bytes(33), open_tile + b"\0", open_tile + bytes(33)):
        np.testing.assert_array_equal(read(compressed(LARGE, data, J2K)), expected)


@pytest.mark.parametrize("plugin", ["pylibjpeg", "pillow"])
@pytest.mark.parametrize("share", [0.4, 0.8, 0.98])
def test_a_cut_codestream_is_refused_and_not_filled(monkeypatch, plugin, share):
    only(monkeypatch, plugin)
    noise = np.random.default_rng(0).integers(0, 4096, (40, 64)).astype("<u2")
    stream = j2k(noise)
    cut = stream[: int(share * len(stream))]
    for data in (cut, cut + b"\xff\xd9"):
        with pytest.raises(UserError, match="is damaged and cannot be decoded"):
            read(compressed(noise, data, J2K, bits=12))


def test_boxes_without_an_end():
    start = b"\0\0\0\x0cjP  \r\n\x87\n"
    for rest in (
        b"",
        struct.pack(">L4s", 0, b"ftyp"),
        struct.pack(">L4s", 4, b"ftyp"),
        struct.pack(">L4s", 8, b"x") * 9999,
    ):
        with pytest.raises(UserError, match="is damaged and cannot be decoded"):
            read(compressed(LARGE, start + rest, J2K))


def test_high_throughput_jpeg_2000():
    for syntax in (HTJ2K, "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"):
        found = read(compressed(UNSIGNED, HIGH_THROUGHPUT, syntax, bits=12, **WINDOW))
        np.testing.assert_array_equal(found, read(dicom(UNSIGNED, bits=12, **WINDOW)))
    found = read(compressed(SIGNED, HIGH_THROUGHPUT_SIGNED, HTJ2K, bits=12))
    np.testing.assert_array_equal(found, read(dicom(SIGNED, bits=12)))


@pytest.mark.parametrize("plugin", ["pyjpegls", "gdcm"])
@pytest.mark.parametrize("window", [{}, WINDOW])
def test_jpeg_ls(monkeypatch, plugin, window):
    only(monkeypatch, plugin)
    for pixels, bits, stream in (
        (UNSIGNED, 12, ls(UNSIGNED)),
        (BYTES, 8, ls(BYTES)),
        (SIGNED, 12, ls((SIGNED.astype(int) & 0xFFF).astype("<u2"))),  # the sign not repeated
        (SIGNED, 12, ls(SIGNED.view("<u2"))),  # all 16 bits
        (SIGNED, 16, ls(SIGNED.view("<u2"))),
    ):
        found = read(compressed(pixels, stream, LS, bits=bits, **window))
        np.testing.assert_array_equal(found, read(dicom(pixels, bits=bits, **window)))
    found = read(compressed(UNSIGNED, ls(UNSIGNED, lossy=2), NEAR_LS, bits=12, **window)).astype(int)
    assert np.abs(found - read(dicom(UNSIGNED, bits=12, **window))).max() <= 1


@pytest.mark.parametrize("syntax", [PROCESS_14, SV1])
def test_lossless_jpeg(syntax):
    for window in ({}, WINDOW):
        found = read(compressed(UNSIGNED, LOSSLESS, syntax, bits=12, **window))
        np.testing.assert_array_equal(found, read(dicom(UNSIGNED, bits=12, **window)))
    negative = (UNSIGNED.astype(int) - 4096 * (UNSIGNED >= 2048)).astype("<i2")
    found = read(compressed(negative, LOSSLESS, syntax, bits=12))
    np.testing.assert_array_equal(found, read(dicom(negative, bits=12)))


def test_jpeg_of_12_and_of_8_bits_under_the_same_syntax():
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        told = {"bits": 12, "PhotometricInterpretation": photometric, "WindowCenter": "2048", "WindowWidth": "4096"}
        found = read(compressed(UNSIGNED, TWELVE_BITS, EXTENDED, **told)).astype(int)
        assert np.abs(found - read(dicom(UNSIGNED, **told))).max() <= 1
    stream = io.BytesIO()
    Image.fromarray(BYTES).save(stream, "JPEG", quality=100)
    found = read(compressed(BYTES, stream.getvalue(), EXTENDED, WindowCenter="128", WindowWidth="256"))
    assert np.abs(found.astype(int) - BYTES).max() <= 3


@pytest.mark.parametrize(
    ("stream", "syntax"),
    [
        (TWELVE_BITS, EXTENDED),
        (LOSSLESS, PROCESS_14),
        (LOSSLESS, SV1),
        (ls(UNSIGNED), LS),
        (jp2(UNSIGNED), J2K),
        (HIGH_THROUGHPUT, HTJ2K),
    ],
)
def test_without_a_decoder_the_sentence_names_the_extra(monkeypatch, stream, syntax):
    only(monkeypatch, None)
    with pytest.raises(UserError, match=r"no decoder for that is installed: pip install 'cxr-jax\[dicom\]', or"):
        read(compressed(UNSIGNED, stream, syntax, bits=12))


def test_more_bits_than_the_header_has_room_for():
    with pytest.raises(UserError, match="its pixels take more bits than its header says"):
        read(compressed(BYTES, LOSSLESS, SV1))


def test_a_jpeg_of_8_bits_under_a_header_of_12_would_be_black():
    stream = io.BytesIO()
    Image.fromarray(BYTES).save(stream, "JPEG")
    for syntax in (BASELINE, EXTENDED):
        with pytest.raises(UserError, match="its pixels take fewer bits than its header says"):
            read(compressed(UNSIGNED, stream.getvalue(), syntax, bits=12))
        found = read(compressed(UNSIGNED, stream.getvalue(), syntax, bits=8))  # 8 bits in 16
        np.testing.assert_array_equal(found, read(compressed(BYTES, stream.getvalue(), syntax)))


def test_what_is_lossy_may_leave_its_range_and_stays_white():
    """An irreversible codestream overshoots at edges: the next value above 10 bits must not be black."""
    edge = np.zeros((64, 64), "<u2")
    edge[:, 20:40] = 1023
    stream = io.BytesIO()
    Image.fromarray(edge).save(
        stream, "JPEG2000", no_jp2=True, irreversible=True, quality_mode="rates", quality_layers=[40]
    )
    decoded = np.array(Image.open(stream))
    assert decoded.max() > 1023
    window = {"WindowCenter": "512", "WindowWidth": "1024"}
    found = read(compressed(edge, stream.getvalue(), LOSSY_J2K, bits=10, **window))
    expected = read(dicom(np.minimum(decoded, 1023).astype("<u2"), bits=10, **window))
    assert np.abs(found.astype(int) - expected).max() <= 1
