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
