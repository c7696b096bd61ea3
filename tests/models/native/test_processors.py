"""The kernels compute the same, up to rounding, on every processor that they are written for: against float64, through
the program that `driver` holds.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cxr_jax.models.kernels.depthwise import output_size
from cxr_jax.models.kernels.native.calls import ACTIVATIONS
from cxr_jax.models.kernels.native.operations import LANES

from . import references
from .kernel_program import KernelProgram, bfloat16, processor_features
from .kernel_targets import AVX2, AVX512, SLOW_TARGETS, TARGETS
from .references import Window

ROUNDING = 2.0**-8
"""Relative error of one rounding to bfloat16."""

sizes = st.integers(1, 9)
few = settings(max_examples=12)


@pytest.fixture(
    scope="module",
    params=[*TARGETS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TARGETS)],
)
def program(request):
    target = (TARGETS | SLOW_TARGETS)[request.param]
    if reason := target.why_not():
        pytest.skip(reason)
    running = KernelProgram(target, threads=3)
    yield running
    running.close()


def values(shape, seed, scale=1.0):
    return bfloat16(np.random.default_rng(seed).standard_normal(shape) * scale)


def parameters(shape, seed):
    return values(shape, seed).astype(np.float32)


def called(program, name, operands, results, *numbers):
    assert program.call(name, operands, results, *numbers) == ""
    return [np.asarray(result, np.float64) for result in results]


def assert_close(found, expected, tolerance):
    """Equal up to `tolerance` times the largest value: what is near zero by cancellation keeps its rounding."""
    assert found.shape == expected.shape
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(largest, 1e-20))


def assert_same_convolution(program, name, kernel_shape, x, output, window, reference, gradients):
    kernel, offset = values(kernel_shape, 2), parameters(kernel_shape[-1:], 3)
    given_kernel = kernel.astype(np.float32) if name.endswith("depthwise") else kernel
    g = values((x.shape[0], *output, kernel_shape[-1]), 4)
    exact = [array.astype(np.float64) for array in (x, kernel, g)]
    for activation, number in ACTIVATIONS.items():
        (y,) = called(program, name, (x, given_kernel, offset), (np.empty_like(g),), number, *window.numbers())
        assert_close(y, references.activated(reference(*exact[:2], output, window) + offset, activation), ROUNDING)
    (of_x,) = called(program, f"{name}_input", (g, given_kernel), (np.empty_like(x),), *window.numbers())
    empty_kernel = np.empty(kernel_shape, np.float32)
    (of_kernel,) = called(program, f"{name}_kernel", (x, g), (empty_kernel,), *window.numbers())
    expected_of_x, expected_of_kernel = gradients(*exact, window)
    assert_close(of_x, expected_of_x, ROUNDING)
    assert_close(of_kernel, expected_of_kernel, 1e-5)


@few
@given(
    batch=st.integers(1, 3),
    size=st.tuples(sizes, sizes),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 110),
    window=st.builds(
        Window,
        st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 3), (1, 3), (4, 1)]),
        st.integers(1, 2),
        st.integers(0, 1),
        st.integers(0, 1),
    ),
)
# more pixels than are packed at once, and depths beyond one block of the summed axis
@example(batch=2, size=(17, 16), inputs=24, outputs=50, window=Window((1, 1), 1, 0, 0))
@example(batch=2, size=(7, 7), inputs=300, outputs=33, window=Window((1, 1), 1, 0, 0))
@example(batch=1, size=(5, 4), inputs=64, outputs=16, window=Window((3, 3), 1, 1, 1))
# rows whose distance would be a whole number of pages
@example(batch=1, size=(3, 3), inputs=512, outputs=8, window=Window((1, 1), 1, 0, 0))
@example(batch=1, size=(1, 1), inputs=1, outputs=1, window=Window((1, 1), 1, 0, 0))
def test_the_convolution_and_its_gradients(program, batch, size, inputs, outputs, window):
    pads = ((window.top, 0), (window.left, 0))
    output = tuple(output_size(size[axis], window.size[axis], window.stride, pads[axis]) for axis in (0, 1))
    assume(min(output) > 0)
    assert_same_convolution(
        program,
        "convolution",
        (*window.size, inputs, outputs),
        values((batch, *size, inputs), 1),
        output,
        window,
        references.convolution,
        references.convolution_gradients,
    )


@few
@given(
    batch=st.sampled_from([1, 2, 9]),
    size=st.tuples(sizes, sizes),
    groups=st.integers(1, 5),
    stride=st.integers(1, 2),
    top=st.integers(0, 1),
)
@example(batch=1, size=(1, 1), groups=3, stride=1, top=1)
@example(batch=2, size=(9, 8), groups=3, stride=2, top=1)
def test_the_depthwise_convolution_and_its_gradients(program, batch, size, groups, stride, top):
    output = tuple(output_size(length, 3, stride, (top, 1)) for length in size)
    assume(min(output) > 0)
    assert_same_convolution(
        program,
        "depthwise",
        (3, 3, LANES * groups),
        values((batch, *size, LANES * groups), 1),
        output,
        Window((3, 3), stride, top, top),
        references.depthwise,
        references.depthwise_gradients,
    )


@few
@given(
    batch=st.sampled_from([1, 2, 9]),
    size=st.tuples(sizes, sizes),
    groups=st.integers(1, 4),
    outputs=st.integers(1, 70),
    stride=st.integers(0, 2),  # 0: a 1x1 convolution
    activation=st.sampled_from([*ACTIVATIONS]),
)
# more pixels than are packed at once, and rows whose distance would be a whole number of pages
@example(batch=2, size=(17, 16), groups=3, outputs=50, stride=0, activation="relu6")
@example(batch=1, size=(3, 3), groups=32, outputs=8, stride=0, activation="silu")
@example(batch=2, size=(9, 8), groups=3, outputs=1, stride=2, activation="relu6")
def test_what_is_normalised_while_it_is_loaded(program, batch, size, groups, outputs, stride, activation):
    channels, side = LANES * groups, 3 if stride else 1
    name = "normalised_depthwise" if stride else "normalised_convolution"
    reference, gradients = (
        (references.depthwise, references.depthwise_gradients)
        if stride
        else (references.convolution, references.convolution_gradients)
    )
    window = Window((side, side), max(stride, 1), side // 2, side // 2)
    output = tuple(output_size(length, side, window.stride, (side // 2, side // 2)) for length in size)
    x, factor, offset = values((batch, *size, channels), 1), parameters(channels, 3), parameters(channels, 4)
    kernel = values((side, side, channels) if stride else (1, 1, channels, outputs), 2)
    given_kernel = kernel.astype(np.float32) if stride else kernel
    g, numbers = values((batch, *output, kernel.shape[-1]), 5), (ACTIVATIONS[activation], *window.numbers())
    (y,) = called(program, name, (x, given_kernel, factor, offset), (np.empty_like(g),), *numbers)
    normalised = references.activated(x.astype(np.float64) * factor + offset, activation)
    # what is normalised is rounded, and so is the result
    assert_close(y, reference(normalised, kernel.astype(np.float64), output, window), 2 * ROUNDING)
    empty = np.empty(kernel.shape, np.float32)
    (of_kernel,) = called(program, f"{name}_kernel", (x, g, factor, offset), (empty,), *numbers)
    _, expected = gradients(normalised, kernel.astype(np.float64), g.astype(np.float64), window)
    assert_close(of_kernel, expected, 2 * ROUNDING)
    refused = program.call(f"{name}_kernel", (x, g, factor[1:], offset), (empty,), *numbers)
    assert "do not belong together" in refused


@few
@given(
    batch=st.sampled_from([1, 2, 9]),
    size=st.tuples(sizes, sizes),
    channels=st.integers(1, 50),
    side=st.sampled_from([3, 5]),
    stride=st.integers(1, 2),
    top=st.integers(0, 2),
)
@example(batch=1, size=(1, 1), channels=40, side=5, stride=1, top=2)
@example(batch=2, size=(9, 14), channels=24, side=5, stride=2, top=1)
@example(batch=1, size=(7, 7), channels=56, side=3, stride=1, top=1)
def test_any_depthwise_convolution_and_its_gradients(program, batch, size, channels, side, stride, top):
    output = tuple(output_size(length, side, stride, (top, 1)) for length in size)
    assume(min(output) > 0)
    assert_same_convolution(
        program,
        "any_depthwise",
        (side, side, channels),
        values((batch, *size, channels), 1),
        output,
        Window((side, side), stride, top, top),
        references.depthwise,
        references.depthwise_gradients,
    )


@few
@given(
    batch=st.sampled_from([1, 2, 11]),
    size=st.tuples(sizes, sizes),
    inputs=st.integers(1, 40),
    groups=st.integers(1, 9),
    outputs=st.integers(1, 70),
    side=st.sampled_from([3, 5]),
    stride=st.integers(1, 2),
    top=st.integers(0, 2),
    activation=st.sampled_from([*ACTIVATIONS]),
)
# one image, whose channels threads share; several images at once; several bands of an image; few pixels
@example(batch=1, size=(7, 7), inputs=40, groups=15, outputs=40, side=3, stride=1, top=1, activation="relu6")
@example(batch=11, size=(8, 7), inputs=24, groups=4, outputs=40, side=3, stride=2, top=1, activation="relu6")
@example(batch=1, size=(41, 56), inputs=24, groups=9, outputs=24, side=3, stride=1, top=1, activation="relu6")
@example(batch=4, size=(29, 31), inputs=33, groups=4, outputs=17, side=5, stride=2, top=2, activation="silu")
@example(batch=1, size=(1, 1), inputs=3, groups=1, outputs=3, side=3, stride=1, top=1, activation="none")
def test_an_inverted_residual_block(program, batch, size, inputs, groups, outputs, side, stride, top, activation):
    output = tuple(output_size(length, side, stride, (top, 1)) for length in size)
    assume(min(output) > 0)
    adds_input = (output, outputs) == (size, inputs)
    x, channels, window = values((batch, *size, inputs), 1), LANES * groups, Window((side, side), stride, top, top)
    shapes = (1, 1, inputs, channels), (side, side, 1, channels), (1, 1, channels, outputs)
    kernels = [parameters(shape, seed) / shape[0] / shape[2] ** 0.5 for seed, shape in enumerate(shapes)]
    factors, offsets = ([parameters(shape[-1:], seed) for seed, shape in enumerate(shapes, first)] for first in (3, 6))
    folded = [array for three in zip(kernels, factors, offsets, strict=True) for array in three]
    numbers = (ACTIVATIONS[activation], *window.numbers(), int(adds_input))
    given_y = np.empty((batch, *output, outputs), x.dtype)
    (y,) = called(program, "inverted_residual", (x, *folded), (given_y,), *numbers)
    exact = [array.astype(np.float64) for array in (x, *kernels)]
    whole = Window((1, 1), 1, 0, 0)
    wide = references.convolution(exact[0], exact[1], size, whole) * factors[0] + offsets[0]
    wide = references.activated(wide, activation)
    filtered = references.depthwise(wide, exact[2][:, :, 0], output, window) * factors[1] + offsets[1]
    filtered = references.activated(filtered, activation)
    expected = references.convolution(filtered, exact[3], output, whole) * factors[2] + offsets[2]
    # where the processor multiplies bfloat16 values, weights and what is projected are rounded too
    assert_close(y, expected + exact[0] if adds_input else expected, 3 * ROUNDING)
    for wrong in range(len(folded)):
        operands = [array.reshape(-1)[1:] if place == wrong else array for place, array in enumerate(folded)]
        assert program.call("inverted_residual", (x, *operands), (given_y,), *numbers)


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
