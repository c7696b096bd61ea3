"""Every step from stored value to grey, against the formulas of the standard worked out by hand."""

import math

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from cxr_jax.data.decode import decode_grey

from .drawn import dataset, dicom, encode, lut

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
RLE = "1.2.840.10008.1.2.5"
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def ramp(kind, low, high):
    return np.linspace(low, high, 12 * 20).round().astype(kind).reshape(12, 20)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize(
    ("kind", "bits", "low", "high"),
    [
        ("<u1", 8, 0, 255),
        ("<u2", 8, 0, 255),
        ("<u2", 10, 0, 1023),
        ("<u2", 12, 0, 4095),
        ("<u2", 16, 0, 65_535),
        ("<i1", 8, -128, 127),
        ("<i2", 12, -2048, 2047),
        ("<i2", 16, -32_768, 32_767),
    ],
)
def test_without_a_window_the_whole_range_is_shown(syntax, kind, bits, low, high):
    pixels = ramp(kind, low, high)
    expected = np.rint(255 * (pixels.astype(float) - low) / (high - low))
    np.testing.assert_array_equal(decode_grey(dicom(pixels, syntax, bits=bits), name="a"), expected)
    inverted = dicom(pixels, syntax, bits=bits, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(decode_grey(inverted, name="a"), 255 - expected)


def test_without_a_window_the_darkest_and_the_brightest_pixel_set_the_range():
    pixels = ramp("<u2", 1000, 1400)
    shown = decode_grey(dicom(pixels, bits=12), name="a")
    np.testing.assert_array_equal(shown, np.rint(255 * (pixels - 1000.0) / 400))
    assert decode_grey(dicom(np.full((4, 4), 77, "<u2")), name="flat").max() == 0


def test_the_windows_of_the_standard():
    # PS3.3 C.11.2.1.2.1: with centre 2048 and width 4096 value 0 is the lowest and 4095 the highest output
    whole = {"WindowCenter": "2048", "WindowWidth": "4096"}
    ends = np.array([[0, 4095, 2047, 2048]], "<u2")
    assert decode_grey(dicom(ends, bits=12, **whole), name="a").tolist() == [[0, 255, 127, 128]]
    # the same paragraph: with centre 2048 and width 1 values up to 2047 are the lowest, all others the highest
    step = {"WindowCenter": "2048", "WindowWidth": "1"}
    assert decode_grey(dicom(ends, bits=12, **step), name="a").tolist() == [[0, 255, 0, 255]]
    # C.11.2.1.3.2: exact, so that 0 and 4096 are the ends, and 2048 lies in the middle
    exact = {**whole, "VOILUTFunction": "LINEAR_EXACT"}
    assert decode_grey(dicom(np.array([[0, 1024, 2048]], "<u2"), bits=12, **exact), name="a").tolist() == [[0, 64, 128]]
    # C.11.2.1.3.1
    sigmoid = {"WindowCenter": "100", "WindowWidth": "40", "VOILUTFunction": "SIGMOID"}
    expected = [round(255 / (1 + math.exp(-4 * (value - 100) / 40))) for value in (60, 100, 140, 4095)]
    found = decode_grey(dicom(np.array([[60, 100, 140, 4095]], "<u2"), bits=12, **sigmoid), name="a")
    assert found.tolist() == [expected]


def test_the_first_of_several_windows_is_used():
    pixels = ramp("<u2", 0, 4095)
    one = dicom(pixels, bits=12, WindowCenter="500", WindowWidth="300")
    several = dicom(pixels, bits=12, WindowCenter=["500", "3000"], WindowWidth=["300", "10"])
    np.testing.assert_array_equal(decode_grey(several, name="a"), decode_grey(one, name="b"))


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_look_up_tables(vr):
    pixels = np.array([[0, 5, 6, 7, 8, 300]], "<i2")
    modality = lut([10, 20, 4095], 6, 12, vr)  # 6, 7 and 8; below the first, above the last
    shown = decode_grey(dicom(pixels, ModalityLUTSequence=modality, WindowCenter="128", WindowWidth="256"), name="a")
    assert shown.tolist() == [[10, 10, 10, 20, 255, 255]]
    voi = lut([0, 512, 1023], 6, 10, vr)
    shown = decode_grey(dicom(pixels, VOILUTSequence=voi, WindowCenter="1", WindowWidth="1"), name="a")
    assert shown.tolist() == [[0, 0, 0, 128, 255, 255]]  # the table goes before the window


def test_a_table_that_begins_below_zero():
    pixels = np.array([[-40, -3, -2, -1, 0]], "<i2")
    for syntax in (IMPLICIT, EXPLICIT):
        shown = decode_grey(dicom(pixels, syntax, VOILUTSequence=lut([0, 51, 255], -3, 8, "SS")), name="a")
        assert shown.tolist() == [[0, 0, 51, 255, 255]]


def test_bits_above_the_stored_ones_are_no_pixels():
    pixels = ramp("<u2", 0, 4095)
    overlay = pixels | np.where(np.arange(20) % 3 == 0, 0xF000, 0).astype("<u2")
    plain = decode_grey(dicom(pixels, bits=12), name="a")
    np.testing.assert_array_equal(decode_grey(dicom(overlay, bits=12), name="a"), plain)
    signed = ramp("<i2", -2048, 2047)
    cut = (signed & 0x0FFF).astype("<i2")  # the sign not repeated
    np.testing.assert_array_equal(
        decode_grey(dicom(cut, bits=12), name="a"), decode_grey(dicom(signed, bits=12), name="a")
    )


@given(
    st.sampled_from([("<u2", 12, 0), ("<i2", 12, -2048), ("<u1", 8, 0), ("<u2", 16, 0)]),
    st.sampled_from(FUNCTIONS),
    st.integers(-3000, 5000),
    st.integers(2, 6000),
    st.sampled_from([(None, None), ("2", "-100"), ("0.25", "3.5")]),
)
def test_any_window_is_that_of_pydicom(kind, function, centre, width, rescale):
    dtype, bits, low = kind
    pixels = ramp(dtype, low, low + 2**bits - 1)
    elements = {"WindowCenter": str(centre), "WindowWidth": str(width), "VOILUTFunction": function}
    if rescale[0]:
        elements |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
    made = dataset(pixels, bits=bits, **elements)
    theirs = apply_voi_lut(apply_modality_lut(pixels, made), made, prefer_lut=False).astype(float)
    low, high = (float(value) for value in pydicom_range(made))
    expected = 255 * (theirs - low) / (high - low)
    found = decode_grey(encode(made), name="a")
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


def pydicom_range(made: pydicom.Dataset) -> tuple[float, float]:
    """The output range that pydicom's windows are scaled to."""
    low = -(2 ** (made.BitsStored - 1)) if made.PixelRepresentation else 0
    slope, intercept = float(made.get("RescaleSlope", 1)), float(made.get("RescaleIntercept", 0))
    return low * slope + intercept, (low + 2**made.BitsStored - 1) * slope + intercept


def test_a_negative_slope_turns_black_and_white_round():
    pixels = ramp("<u2", 0, 4095)
    shown = decode_grey(dicom(pixels, bits=12, RescaleSlope="-1", RescaleIntercept="4095"), name="a")
    np.testing.assert_array_equal(shown, np.rint(255 * (4095.0 - pixels) / 4095))


def test_a_window_without_a_meaning_is_none():
    """Many files have one of width 0, because nobody chose one."""
    pixels = ramp("<u2", 100, 3000)
    plain = decode_grey(dicom(pixels, bits=12), name="a")
    for width in ("0", "-5", "0.5"):
        made = dicom(pixels, bits=12, WindowCenter="0", WindowWidth=width)
        np.testing.assert_array_equal(decode_grey(made, name="a"), plain)
    chosen = decode_grey(dicom(pixels, bits=12, WindowCenter="900", WindowWidth="600"), name="a")
    several = dicom(pixels, bits=12, WindowCenter=["0", "900", "1"], WindowWidth=["0", "600", "1"])
    np.testing.assert_array_equal(decode_grey(several, name="a"), chosen)
    exact = dicom(pixels, bits=12, WindowCenter="900", WindowWidth="0.5", VOILUTFunction="LINEAR_EXACT")
    assert set(np.unique(decode_grey(exact, name="a"))) <= {0, 255}


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("first", [{}, {"LUTDescriptor": None, "LUTData": None}, {"LUTDescriptor": [3, 6, 10]}])
def test_an_item_without_a_table_is_passed_over(keyword, first):
    pixels = ramp("<u2", 0, 4095)
    empty = pydicom.Dataset()
    for name, value in first.items():
        empty.add_new(name, "US" if name == "LUTDescriptor" else "OW", value)
    plain = decode_grey(dicom(pixels, bits=12), name="a")
    np.testing.assert_array_equal(decode_grey(dicom(pixels, bits=12, **{keyword: [empty]}), name="a"), plain)
    table = lut(list(range(4095, -1, -1)), 0, 12)
    turned = decode_grey(dicom(pixels, bits=12, **{keyword: table}), name="a")
    np.testing.assert_array_equal(decode_grey(dicom(pixels, bits=12, **{keyword: [empty, *table]}), name="a"), turned)
    assert turned[0, 0] > turned[-1, -1]


@pytest.mark.parametrize("stated", [10, 12, 16])
def test_a_table_that_states_more_bits_than_its_entries_take(stated):
    """Writers state the 16 bits of a word: white is what the entries can reach, and not black."""
    pixels = ramp("<u2", 0, 1023)
    shown = decode_grey(dicom(pixels, bits=10, VOILUTSequence=lut(list(range(1024)), 0, stated)), name="a")
    np.testing.assert_array_equal(shown, np.rint(255.0 * pixels / 1023))
    few = dicom(np.array([[0, 1, 2]], "<u2"), VOILUTSequence=lut([0, 20, 40], 0, 16))
    assert decode_grey(few, name="a").tolist() == [[0, 20, 40]]  # no table is made for fewer than 256 greys


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("first", [-1024, -1, 0, 40_000])
def test_the_first_value_of_a_table_is_signed_where_its_inputs_may_be(vr, syntax, first):
    """PS3.3 C.11.2.1.1: it follows the rescaled values, whatever the file states of its representation."""
    stored = np.arange(0, 4096, 100, "<u2")[None]
    word = first % 2**16
    if vr == "SS":
        word -= 2**16 if word >= 2**15 else 0
    table = lut(list(range(4096)), 0, 12)
    table[0].add_new("LUTDescriptor", vr, [4096, word, 12])
    made = dicom(stored, syntax, bits=12, RescaleSlope="1", RescaleIntercept=str(first), VOILUTSequence=table)
    np.testing.assert_array_equal(decode_grey(made, name="a")[0], np.rint(255.0 * stored[0] / 4095))


def test_the_first_value_of_a_modality_table_follows_the_stored_values():
    signed = np.array([[-3, -2, -1, 0]], "<i2")
    unsigned = np.array([[65_533, 65_534, 65_535, 0]], "<u2")
    for syntax in (IMPLICIT, EXPLICIT):
        table = lut([0, 100, 255], 65_533, 8)
        assert decode_grey(dicom(signed, syntax, ModalityLUTSequence=table), name="a").tolist() == [[0, 100, 255, 255]]
        assert decode_grey(dicom(unsigned, syntax, ModalityLUTSequence=table), name="a").tolist() == [[0, 100, 255, 0]]


def padded(low, high, padding, dtype="<u2"):
    """A ramp with a border of padding."""
    image = np.linspace(low, high, 200).round().astype(dtype).reshape(10, 20)
    whole = np.full((14, 24), padding, dtype)
    whole[2:-2, 2:-2] = image
    return whole, image


@pytest.mark.parametrize(
    ("low", "high", "padding", "dtype", "bits"),
    [
        (600, 3560, 65_535, "<u2", 16),
        (600, 3560, 0, "<u2", 12),
        (-900, 1800, -2000, "<i2", 12),
        (10, 200, 255, "<u1", 8),
        (0, 4095, 65_535, "<u2", 12),  # outside of the stored bits, whose highest value is that of real pixels
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": "500", "WindowWidth": "9000"}])
def test_padding_is_black_and_no_part_of_the_range(low, high, padding, dtype, bits, photometric, window):
    whole, image = padded(low, high, padding, dtype)
    told = {"PhotometricInterpretation": photometric, **window}
    for vr in ("US", "SS"):
        made = dataset(whole, bits=bits, **told)
        word = padding % 2**16
        made.add_new("PixelPaddingValue", vr, word - 2**16 if vr == "SS" and word >= 2**15 else word)
        shown = decode_grey(encode(made), name="a")
        np.testing.assert_array_equal(shown[2:-2, 2:-2], decode_grey(dicom(image, bits=bits, **told), name="a"))
        shown[2:-2, 2:-2] = 0
        assert shown.max() == 0


def test_a_range_of_padding():
    whole, image = padded(600, 3560, 0)
    whole[0, :5] = [20, 40, 60, 80, 100]
    for ends in ((0, 100), (100, 0)):
        made = dicom(whole, bits=12, PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1])
        shown = decode_grey(made, name="a")
        assert shown[0].max() == 0
        np.testing.assert_array_equal(shown[2:-2, 2:-2], decode_grey(dicom(image, bits=12), name="a"))


def test_padding_that_cannot_be_is_no_padding():
    """All pixels, or a value in the midst of the others."""
    flat = np.full((4, 4), 7, "<u2")
    window = {"WindowCenter": "7", "WindowWidth": "100"}
    shown = decode_grey(dicom(flat, PixelPaddingValue=7, **window), name="a")
    np.testing.assert_array_equal(shown, decode_grey(dicom(flat, **window), name="a"))
    image = ramp("<u2", 0, 4095)
    shown = decode_grey(dicom(image, bits=12, PixelPaddingValue=int(image[6, 3])), name="a")
    np.testing.assert_array_equal(shown, decode_grey(dicom(image, bits=12), name="a"))


@pytest.mark.parametrize("high_bit", [12, 15])
def test_pixels_in_the_upper_bits(high_bit):
    for pixels in (ramp("<u2", 0, 4095), ramp("<i2", -2048, 2047)):
        plain = decode_grey(dicom(pixels, bits=12), name="a")
        moved = (pixels.astype(int) << (high_bit - 11)).astype(pixels.dtype)
        made = dataset(moved, bits=12, HighBit=high_bit)
        np.testing.assert_array_equal(decode_grey(encode(made), name="a"), plain)
        made.compress(RLE, generate_instance_uid=False)
        np.testing.assert_array_equal(decode_grey(encode(made), name="a"), plain)


def test_monochrome1_with_tables_and_rescaling_with_a_window():
    """Inversion comes last, after everything else."""
    pixels = ramp("<u2", 0, 4095)
    for told in (
        {"VOILUTSequence": lut(list(range(0, 4096, 2)) * 2, 0, 12)},
        {"ModalityLUTSequence": lut(list(range(4095, -1, -1)), 0, 12), "WindowCenter": "900", "WindowWidth": "700"},
        {"RescaleSlope": "0.5", "RescaleIntercept": "-300", "WindowCenter": "900", "WindowWidth": "700"},
    ):
        plain = decode_grey(dicom(pixels, bits=12, **told), name="a")
        turned = decode_grey(dicom(pixels, bits=12, PhotometricInterpretation="MONOCHROME1", **told), name="a")
        np.testing.assert_array_equal(turned, 255 - plain)
        assert len(np.unique(plain)) > 3
    window = dicom(pixels, bits=12, RescaleSlope="2", RescaleIntercept="-1000", WindowCenter="3000", WindowWidth="2000")
    expected = np.clip(((2.0 * pixels - 1000 - 2999.5) / 1999 + 0.5), 0, 1)
    np.testing.assert_array_equal(decode_grey(window, name="a"), np.rint(255 * expected))
