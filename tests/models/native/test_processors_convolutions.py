"""Convolutions, and calls that hold several of them, compute the same, up to rounding, on every processor that the
kernels are written for: against float64, through the program that `driver` holds.
"""

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cxr_jax.models.kernels.depthwise import output_size
from cxr_jax.models.kernels.native.calls import ACTIVATIONS
from cxr_jax.models.kernels.native.operations import LANES

from . import references
from .kernel_checks import ROUNDING, assert_close, called, few, parameters, sizes, values
from .references import Window


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
