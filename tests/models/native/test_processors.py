"""The kernels compute the same, up to rounding, on every processor that they are written for: against float64, through
the program that `driver` holds. Convolutions have a file of their own.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cxr_jax.models.kernels.depthwise import output_size
from cxr_jax.models.kernels.native.calls import ACTIVATIONS

from . import references
from .kernel_checks import ROUNDING, assert_close, called, few, parameters, sizes, values
from .kernel_program import bfloat16, processor_features
from .kernel_targets import AVX2, AVX512
from .references import Window


@few
@given(shape=st.tuples(st.integers(1, 3), sizes, sizes, st.integers(1, 50)), activation=st.sampled_from([*ACTIVATIONS]))
@example(shape=(1, 33, 35, 24), activation="silu")
@example(shape=(1, 33, 35, 3), activation="relu6")
def test_normalisation_and_its_gradients(program, shape, activation):
    x, g, channels, number = values(shape, 1, 3.0), values(shape, 2), shape[-1:], ACTIVATIONS[activation]
    factor, offset, mean, slope, constant = (parameters(channels, seed) for seed in range(3, 8))
    exact, of_y = x.astype(np.float64), g.astype(np.float64)
    before = exact * factor + offset
    sloped = of_y * references.slope(before, activation)
    pixels, sums = (0, 1, 2), np.empty((2, *channels), np.float32)
    for name, operands, terms in (
        ("statistics", (x, mean), (exact - mean, (exact - mean) ** 2)),
        ("normalise_gradient_sums", (x, g, factor, offset, mean), (sloped, sloped * (exact - mean))),
    ):
        (found,) = called(program, name, operands, (sums,), *([] if name == "statistics" else [number]))
        # sums of values that cancel keep the rounding of what was added
        atol = 1e-5 * max(np.abs(term).sum(pixels).max() for term in terms)
        np.testing.assert_allclose(found, [term.sum(pixels) for term in terms], rtol=0, atol=max(atol, 1e-20))
    (y,) = called(program, "normalise", (x, factor, offset), (np.empty_like(x),), number)
    assert_close(y, references.activated(before, activation), ROUNDING)
    operands = (x, g, factor, offset, slope, constant)
    (of_x,) = called(program, "normalise_gradient", operands, (np.empty_like(x),), number)
    assert_close(of_x, factor * sloped + exact * slope + constant, ROUNDING)


@few
@given(
    batch=st.integers(1, 3),
    size=st.tuples(sizes, sizes),
    channels=st.integers(1, 40),
    side=st.integers(1, 4),
    stride=st.integers(1, 3),
    before=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    behind=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    levels=st.integers(1, 5),
)
@example(batch=1, size=(9, 9), channels=64, side=3, stride=2, before=(0, 0), behind=(1, 1), levels=2)
@example(batch=2, size=(8, 7), channels=24, side=3, stride=2, before=(1, 1), behind=(1, 1), levels=3)
def test_pooling_and_its_gradients(program, batch, size, channels, side, stride, before, behind, levels):
    assume(max(*before, *behind) < side)
    output = tuple(output_size(size[axis], side, stride, (before[axis], behind[axis])) for axis in (0, 1))
    window = Window((side, side), stride, *before)
    # the last window may not begin behind the image
    assume(min(output) > 0 and all((output[axis] - 1) * stride - before[axis] < size[axis] for axis in (0, 1)))
    # few levels: many values of a window are equal
    x = bfloat16(np.random.default_rng(1).integers(-levels, levels, (batch, *size, channels)))
    g = values((batch, *output, channels), 2)
    exact, of_y = x.astype(np.float64), g.astype(np.float64)
    numbers = (side, *window.numbers())
    wanted, places = references.pooled(exact, output, window)
    for name, results in (("max_pool", (np.empty_like(g),)), ("max_pool_places", (np.empty_like(g), np.empty_like(g)))):
        for found, expected in zip(called(program, name, (x,), results, *numbers), (wanted, places), strict=False):
            np.testing.assert_array_equal(found, expected)
    (of_x,) = called(program, "max_pool_input", (g, bfloat16(places)), (np.empty_like(x),), *numbers)
    assert_close(of_x, references.pooled_gradient(exact, places, of_y, window), ROUNDING)
    for counts_padding in (0, 1):
        count = side**2 if counts_padding else references.pixels_inside(size, output, window)
        ones = np.ones((side, side, channels))
        (y,) = called(program, "average_pool", (x,), (np.empty_like(g),), counts_padding, *numbers)
        assert_close(y, references.depthwise(exact, ones, output, window) / count, ROUNDING)
        (of_x,) = called(program, "average_pool_input", (g,), (np.empty_like(x),), counts_padding, *numbers)
        assert_close(of_x, references.depthwise_gradients(exact, ones, of_y / count, window)[0], ROUNDING)


@few
@given(shape=st.tuples(st.integers(1, 3), sizes, sizes, st.integers(1, 50)))
@example(shape=(1, 65, 67, 24))
def test_the_gradient_before_an_activation_and_its_sums(program, shape):
    before, g = values(shape, 1, 4.0), values(shape, 2)
    for activation in ("none", "relu", "relu6"):
        y = bfloat16(references.activated(before.astype(np.float64), activation))
        expected = g.astype(np.float64) * references.slope(before.astype(np.float64), activation)
        sums, number = np.empty(shape[-1:], np.float32), ACTIVATIONS[activation]
        of_input, sums = called(program, "activated_input", (y, g), (np.empty_like(g), sums), number)
        np.testing.assert_array_equal(of_input, expected)
        # sums of values that cancel keep the rounding of what was added
        atol = 1e-6 * max(np.abs(expected).sum((0, 1, 2)).max(), 1e-20)
        np.testing.assert_allclose(sums, expected.sum((0, 1, 2)), rtol=0, atol=atol)
    refused = program.call("activated_input", (y, g), (np.empty_like(g), sums.astype(np.float32)), ACTIVATIONS["silu"])
    assert "silu" in refused


def test_windows_that_leave_the_image_are_refused(program):
    x, y = values((1, 4, 4, 16), 1), np.empty((1, 4, 4, 16), bfloat16(0).dtype)
    for window, stride, top, left in (
        (3, 1, 3, 0),
        (3, 1, -1, 0),
        (3, 2, 0, 0),
        (17, 1, 8, 8),
        (0, 1, 0, 0),
        (3, 0, 1, 1),
    ):
        assert program.call("max_pool", (x,), (y,), window, stride, top, left)


def test_not_a_number_stays_one_in_its_pixel(program):
    x, kernel = values((1, 4, 4, 24), 1), values((1, 1, 24, 40), 2)
    nothing = np.zeros(40, np.float32)
    for payload in (0x7F81, 0x7FFF, 0xFF81, 0xFFFF):
        x.view(np.uint16)[0, 1, 2, 3] = payload
        for number in ACTIVATIONS.values():
            y = np.empty((1, 4, 4, 40), x.dtype)
            called(program, "convolution", (x, kernel, nothing), (y,), number, 1, 0, 0)
            expected = np.zeros((4, 4), bool)
            expected[1, 2] = True
            np.testing.assert_array_equal(np.isnan(y[0].astype(np.float32)).all(-1), expected)
            np.testing.assert_array_equal(np.isnan(y[0].astype(np.float32)).any(-1), expected)


def test_infinities_and_ties_are_rounded_as_they_should_be(program):
    # halfway between two bfloat16 values, and just beyond the largest
    given_bits = np.asarray([0x3F808000, 0x3F818000, 0x7F7FFFFF, 0xFF7FFFFF, 0x80000000, 0x7F800000], np.uint32)
    expected = np.asarray([0x3F80, 0x3F82, 0x7F80, 0xFF80, 0x8000, 0x7F80], np.uint16)
    x = np.zeros((1, 1, 8, 6), bfloat16(0).dtype)
    x.view(np.uint16)[...] = 0x8000
    y = np.empty_like(x)
    called(program, "normalise", (x, np.ones(6, np.float32), given_bits.view(np.float32)), (y,), 0)
    np.testing.assert_array_equal(y.view(np.uint16)[0, 0], np.broadcast_to(expected, (8, 6)))


def test_an_array_that_does_not_fit_is_refused(program):
    x, y = values((1, 2, 2, 16), 1), np.empty((1, 2, 2, 16), bfloat16(0).dtype)
    wrong = np.ones(8, np.float32)
    assert "do not belong together" in program.call("normalise", (x, wrong, wrong), (y,), 0)


def test_a_call_that_the_kernel_does_not_know_is_refused(program):
    x, y, ones = values((1, 2, 2, 16), 1), np.empty((1, 2, 2, 16), bfloat16(0).dtype), np.ones(16, np.float32)
    known, numbers = (x, ones, ones), {"activation": 1}
    assert program.call_with("normalise", known, (y,), numbers) == ""
    for operands, results, named in (
        (known[:2], (y,), numbers),
        ((*known, ones), (y,), numbers),
        (known, (y, y), numbers),
        ((x, ones, x), (y,), numbers),
        ((x[0], ones, ones), (y[0],), numbers),
        (known, (ones,), numbers),
        (known, (y,), {}),
        (known, (y,), {"activations": 1}),
    ):
        refused = program.call_with("normalise", operands, results, named)
        assert refused == "the call is not one that this kernel knows"


@pytest.mark.slow
@pytest.mark.parametrize(("processor", "needs"), [("haswell", AVX2), ("skylake-avx512", AVX512)])
def test_kernels_built_for_another_processor_do_what_those_of_this_one_do(
    native_kernels, monkeypatch, processor, needs
):
    if missing := set(needs) - processor_features():
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    monkeypatch.setenv("CXX", f"g++ -march={processor}")
    tests = Path(__file__).with_name("test_operations.py")
    command = [sys.executable, "-m", "pytest", "--no-cov", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tests.parents[3])
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout
