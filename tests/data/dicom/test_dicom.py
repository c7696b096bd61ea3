"""What is read from DICOM files, what is refused, and that no patient is ever heard of."""

import logging
import struct
import sys
import tracemalloc
import warnings
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from cxr_jax.data.decode import decode_grey, without_header
from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.errors import UserError
from tests.counted_calls import counted_calls

from .drawn import PLANTED, SECRET, SECRET_DATE, compressed, dataset, dicom, encode, lut

RLE = "1.2.840.10008.1.2.5"
BASELINE, JPEG_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"


def deep(height=30, width=40):
    return (np.add.outer(np.arange(height) * 60, np.arange(width) * 50)).astype("<u2")


def shallow(height=30, width=40):
    return (deep(height, width) // 16).astype("u1")


def read(data):
    return decode_grey(data, name="film.dcm")


def refusal(data):
    """The sentence with which a file is refused."""
    with pytest.raises(UserError) as caught:
        read(data)
    sentence = str(caught.value)
    assert sentence.startswith("film.dcm ")
    assert "\n" not in sentence
    assert SECRET not in sentence and SECRET_DATE not in sentence
    return sentence


@pytest.mark.parametrize("pixels", [shallow(), deep()])
def test_run_lengths(pixels):
    made = dataset(pixels)
    made.compress(RLE, generate_instance_uid=False)
    np.testing.assert_array_equal(read(encode(made)), read(dicom(pixels)))


def test_jpeg_baseline_is_decoded_as_any_jpeg():
    pixels = shallow()
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    elements = {"WindowCenter": "128", "WindowWidth": "256"}
    found = read(compressed(pixels, jpeg, BASELINE, **elements))
    assert np.abs(found.astype(int) - decode_grey(jpeg, name="a")).max() <= 1
    inverted = read(compressed(pixels, jpeg, BASELINE, PhotometricInterpretation="MONOCHROME1", **elements))
    np.testing.assert_array_equal(inverted, 255 - found)


@pytest.mark.parametrize("frames", ["0", "1", ""])
def test_a_single_frame_is_read_however_it_is_counted(frames):
    np.testing.assert_array_equal(read(dicom(deep(), NumberOfFrames=frames)), read(dicom(deep())))


def test_a_decoder_that_fails_is_one_sentence():
    broken = b"\xff\x4f\xff\x51" + struct.pack(">HHLLLL", 41, 0, 40, 30, 0, 0) + bytes(40)
    assert refusal(compressed(deep(), broken, JPEG_2000)).endswith("is damaged and cannot be decoded")
    jpeg = bytearray(cv2.imencode(".jpg", shallow())[1].tobytes())
    tables = jpeg.index(b"\xff\xc4")
    jpeg[tables + 5 : tables + 21] = b"\xff" * 16
    assert refusal(compressed(shallow(), bytes(jpeg), BASELINE)).endswith("is damaged and cannot be decoded")


def test_pydicom_is_optional(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "pip install 'cxr-jax[dicom]'" in refusal(bytes(128) + b"DICM")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Modality": "CT"}, "of modality CT; only CR and DX"),
        ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "of another class than those of radiographs"),
        ({"Modality": SECRET.upper()}, "of unknown modality"),
        ({"NumberOfFrames": "2"}, "several frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in colour"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 bits a pixel"),
        ({"BitsStored": 4, "HighBit": 3}, "4 bits a pixel in 16"),
        ({"BitsStored": 12, "HighBit": 16}, "in bits that it does not have"),
        ({"BitsStored": 12, "HighBit": 10}, "in bits that it does not have"),
        ({"Rows": 0}, "has no pixels"),
        ({"Rows": None}, "damaged"),
        ({"Rows": 31}, "is truncated"),
        ({"Rows": 20_000, "Columns": 20_000}, "is 20,000 x 20,000 pixels; images may have up to 100 megapixels"),
        ({"PixelData": None}, "holds no image"),
        ({"PixelData": None, "PhotometricInterpretation": None, "Rows": None}, "holds no image"),
        ({"PhotometricInterpretation": None}, "does not say whether its image is grey"),
        ({"WindowCenter": "1", "WindowWidth": "5", "VOILUTFunction": "CUBIC"}, "unknown function"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, "slope or intercept has no meaning"),
        ({"VOILUTSequence": lut([0, 300], 0, 8)}, "damaged"),
        ({"VOILUTSequence": lut([0, 1], 0, 20)}, "damaged"),
    ],
)
def test_what_is_no_radiograph_is_refused_in_one_sentence(elements, words):
    assert words in refusal(dicom(deep(), **elements))


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        ("1.2.840.10008.1.2.4.92", "Multi-component"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
    ],
)
def test_other_ways_of_storing_are_told(syntax, words):
    data = dicom(deep())
    meta = (
        struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax) + len(syntax) % 2)
        + syntax.encode()
        + b"\0" * (len(syntax) % 2)
    )
    body = data[data.index(struct.pack("<HH2s", 8, 0x16, b"UI")) :]
    assert words in refusal(bytes(128) + b"DICM" + meta + body)


def test_the_size_that_an_encoded_frame_says_must_be_that_of_the_file():
    jpeg = cv2.imencode(".jpg", shallow(60, 80))[1].tobytes()
    assert "tell two sizes" in refusal(compressed(shallow(), jpeg, BASELINE))
    side = 60_000
    header = struct.pack(">HHLLLLLLLLHBBB", 41, 0, side, side, 0, 0, side, side, 0, 0, 1, 15, 1, 1)
    huge = b"\xff\x4f\xff\x51" + header + bytes(40)
    tracemalloc.start()
    try:
        assert "tell two sizes" in refusal(compressed(deep(), huge, JPEG_2000))
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_an_rle_bomb_is_unpacked_no_further_than_the_image():
    runs = b"\x81\x00" * 2_000_000  # 128 zeros each: 256 MB
    frame = struct.pack("<16L", 1, 64, *[0] * 14) + runs
    read(compressed(shallow(), frame, RLE))  # numpy and pydicom are loaded
    data = compressed(shallow(), frame, RLE)
    tracemalloc.start()
    try:
        assert read(data).max() == 0
        assert tracemalloc.get_traced_memory()[1] < 5 * len(data)
    finally:
        tracemalloc.stop()
    short = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00"
    assert "is truncated" in refusal(compressed(shallow(), short, RLE))
    assert "RLE header" in refusal(compressed(shallow(), frame[:50], RLE))
    assert "RLE header" in refusal(compressed(deep(), frame, RLE))


def test_millions_of_elements_are_not_read():
    empty = struct.pack("<HH2sH", 0x0009, 0x0010, b"LO", 0)
    start = dicom(shallow())
    at = start.index(struct.pack("<HH2s", 8, 0x16, b"UI"))
    data = start[:at] + empty * 3_000_000 + start[at:]
    said = []
    calls = counted_calls(lambda: said.append(refusal(data)))
    assert "damaged" in said[0]
    assert calls < 3_000_000


@pytest.mark.parametrize(("undefined", "words"), [(True, "damaged"), (False, "holds no encoded image")])
def test_millions_of_fragments_are_not_joined(undefined, words):
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    made = dataset(shallow(), BASELINE)
    made.PixelData = item * 2_000_000
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    data = encode(made)
    if not undefined:
        at = data.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 8
        data = data[:at] + struct.pack("<L", 8 * 2_000_000) + data[at + 4 : -8]
    said = []
    calls = counted_calls(lambda: said.append(refusal(data)))
    assert words in said[0]
    assert calls < 2_000_000


def test_deep_nesting_ends():
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    start = dicom(shallow())
    at = start.index(struct.pack("<HH2s", 8, 0x16, b"UI"))
    assert "damaged" in refusal(start[:at] + (sequence + item) * 20_000 + start[at:])


@given(st.data())
def test_a_cut_file_is_refused(data):
    whole = dicom(deep())
    kept = data.draw(st.integers(132, len(whole) - 1))
    refusal(whole[:kept])


def test_no_patient_reaches_warnings_or_logs(caplog, capfd, monkeypatch):
    made = dataset(deep(), bits=12, WindowCenter="2000", WindowWidth="3000")
    data = encode(made)
    assert data.count(SECRET.encode()) == sum(SECRET in value for value in PLANTED.values())
    # values that break the rules of their kind are what pydicom likes to quote
    odd = data.replace(SECRET_DATE.encode(), f"{SECRET}"[:8].encode())
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for whole in (data, odd):
            read(whole)
            for kept in range(200, len(whole), 97):
                try:
                    read(whole[:kept])
                except UserError as error:
                    assert SECRET not in str(error) and SECRET_DATE not in str(error)
    told = caplog.text + "".join(str(warning.message) for warning in seen) + "".join(capfd.readouterr())
    assert SECRET not in told and SECRET_DATE not in told


def test_a_name_in_the_place_of_the_transfer_syntax_is_not_repeated(caplog, capfd):
    data = bytearray(dicom(deep()))
    at = data.index(b"1.2.840.10008.1.2.1\0", data.index(struct.pack("<HH", 2, 0x10)))
    data[at : at + 20] = f"{SECRET}-1941-Zach.1".encode().ljust(20)[:20]
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert "in a way that is not read: convert" in refusal(bytes(data))
    assert SECRET not in caplog.text + "".join(str(warning.message) for warning in seen) + "".join(capfd.readouterr())


def test_records_keep_the_same_image_and_no_header():
    data = dicom(deep(), bits=12, WindowCenter="2000", WindowWidth="3000", PhotometricInterpretation="MONOCHROME1")
    kept = without_header(data, name="film.dcm")
    assert kept.startswith(b"\x89PNG")
    assert SECRET.encode() not in kept
    np.testing.assert_array_equal(decode_grey(kept, name="a"), read(data))
    jpeg = cv2.imencode(".jpg", shallow())[1].tobytes()
    assert without_header(jpeg, name="a") is jpeg


@pytest.mark.parametrize("sop_class", [None, "", "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.7"])
def test_a_file_that_tells_no_modality_is_read_unless_its_class_is_another(sop_class):
    """As in public sets whose headers were stripped: it is then that of the file meta, or none at all."""
    expected = read(dicom(deep(), bits=12))
    made = dataset(deep(), bits=12, Modality=None, SOPClassUID=sop_class)
    np.testing.assert_array_equal(read(encode(made)), expected)
    if not sop_class:
        made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        assert "of another class than those of radiographs" in refusal(encode(made))
        del made.file_meta.MediaStorageSOPClassUID
        np.testing.assert_array_equal(read(encode(made)), expected)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_files_without_preamble_and_without_meta_are_read(syntax):
    whole = dicom(deep(), syntax, bits=12)
    expected = read(whole)
    np.testing.assert_array_equal(read(whole[132:]), expected)
    np.testing.assert_array_equal(read(whole[whole.index(struct.pack("<HH", 8, 0x16)) :]), expected)
    with pytest.raises(UserError):
        decode_grey(whole[128:], name="begins with the prefix")


BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


@pytest.mark.parametrize("syntax", [BIG_ENDIAN, DEFLATED])
def test_big_endian_and_deflated_files_are_read(syntax):
    told = {
        "bits": 12,
        "ModalityLUTSequence": lut(list(range(0, 8192, 2)), -2000, 13, "SS"),
        "VOILUTSequence": lut(list(range(4096)), 100, 12),
    }
    signed = (deep().astype(int) - 2000).astype("<i2")
    for pixels, elements in ((signed, told), (deep(), {"bits": 12, "PixelPaddingValue": 0}), (shallow(), {})):
        expected = read(dicom(pixels, **elements))
        made = dataset(pixels, syntax, **elements)
        if syntax == BIG_ENDIAN and pixels.itemsize == 2:
            # pydicom leaves words as they are
            made.PixelData = pixels.byteswap().tobytes()
            for keyword in ("ModalityLUTSequence", "VOILUTSequence"):
                for item in made.get(keyword, []):
                    item.LUTData = np.frombuffer(item.LUTData, "<u2").byteswap().tobytes()
        np.testing.assert_array_equal(read(encode(made)), expected)
    bytes_as_words = dataset(shallow(), BIG_ENDIAN)
    bytes_as_words.PixelData = shallow().view("<u2").byteswap().tobytes()
    bytes_as_words["PixelData"].VR = "OW"
    np.testing.assert_array_equal(read(encode(bytes_as_words)), read(dicom(shallow())))


def test_a_deflated_bomb_is_unpacked_no_further_than_a_file_may_be_large():
    whole = dicom(deep(), DEFLATED)
    start = whole.index(b"1.2.840.10008.1.2.1.99") + 22
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(bytes(4 * MAX_BYTES)) + packer.flush()
    tracemalloc.start()
    try:
        assert "images may have up to 64 MiB" in refusal(whole[:start] + packed)
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_BYTES
    finally:
        tracemalloc.stop()
    for kept in range(start, len(whole) - 1, 40):
        refusal(whole[:kept])


def test_a_file_that_does_not_say_how_its_pixels_are_encoded_is_refused():
    """Encoded bytes that were taken for pixels would be noise."""
    made = dataset(shallow(), RLE)
    made.PixelData = encapsulate([np.random.default_rng(0).bytes(4000)])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    whole = encode(made)
    assert "its pixels are encoded, and it does not say how" in refusal(
        whole[whole.index(struct.pack("<HH", 8, 0x16)) :]
    )


def test_signed_streams_are_what_they_are_without_a_code():
    """12 of 16 bits, whose sign the encoders do not repeat; RLE keeps the words as they are."""
    signed = (deep().astype(int) - 2048).astype("<i2")
    made = dataset(signed, bits=12)
    made.compress(RLE, generate_instance_uid=False)
    np.testing.assert_array_equal(read(encode(made)), read(dicom(signed, bits=12)))
