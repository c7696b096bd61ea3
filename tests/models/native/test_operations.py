"""The native kernels compute what XLA computes in float32 from the same bfloat16 values, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jax import lax

from cxr_jax.models.activations import relu, relu6, silu
from cxr_jax.models.kernels.batch_norm import normalise_by_batch
from cxr_jax.models.kernels.depthwise import output_size
from cxr_jax.models.kernels.native import operations as kernels

pytestmark = pytest.mark.usefixtures("native_kernels")

ROUNDING = 2.0**-8
"""Relative error of one rounding to bfloat16."""

ACTIVATIONS = {"none": lambda x: x, "relu6": relu6, "silu": silu, "relu": relu}

sizes = st.integers(1, 17)
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))
few = settings(max_examples=12)

SAME = ((0, 1), (0, 1))
"""TensorFlow's padding at stride 2 for windows of 3 on images of even size."""

AROUND = ((1, 1), (1, 1))


def values(shape, seed, scale=1.0):
    """Normal values that bfloat16 holds exactly, as bfloat16."""
    drawn = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * scale
    return jnp.asarray(drawn).astype(jnp.bfloat16)


def exact(x):
    return x.astype(jnp.float32)


def plain(x, kernel, stride, padding, groups=1):
    """The convolution by XLA, in float32 throughout."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )


def has_output(size, window, stride, padding):
    sides = (window, window) if isinstance(window, int) else window
    return all(output_size(size[axis], sides[axis], stride, padding[axis]) > 0 for axis in (0, 1))


def assert_close(found, expected, tolerance):
    """Equal up to `tolerance` times the largest value: what is near zero by cancellation keeps its rounding."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-20))


def output_and_gradients(function, arguments, g):
    """The output of `function`, and the gradients of its arguments for the output's gradient `g`, by one program."""

    @jax.jit
    def run(arguments, g):
        output, gradients_of = jax.vjp(function, *arguments)
        return output, gradients_of(g)

    return run(arguments, g)


def assert_same_convolution(native, reference, x, kernel):
    g = values(jax.eval_shape(reference, exact(x), kernel).shape, 3)
    y, (of_x, of_kernel) = output_and_gradients(native, (x, kernel), g)
    expected, (expected_of_x, expected_of_kernel) = output_and_gradients(reference, (exact(x), kernel), exact(g))
    assert y.dtype == jnp.bfloat16
    assert_close(y, expected, ROUNDING)
    assert (of_x.dtype, of_kernel.dtype) == (jnp.bfloat16, jnp.float32)
    assert_close(of_x, expected_of_x, ROUNDING)
    assert_close(of_kernel, expected_of_kernel, 1e-5)


@few
@given(
    batch=st.integers(1, 3),
    size=st.tuples(sizes, sizes),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 150),
    window=st.sampled_from([(1, 1), (2, 2), (3, 3), (5, 5), (1, 7), (3, 1)]),
    stride=st.integers(1, 3),
    padding=st.tuples(paddings, paddings),
)
@example(batch=2, size=(5, 6), inputs=4, outputs=5, window=(1, 1), stride=1, padding=((1, 0), (0, 2)))
@example(batch=2, size=(5, 6), inputs=3, outputs=5, window=(1, 1), stride=1, padding=((0, 2), (0, 0)))
@example(batch=2, size=(1, 1), inputs=6, outputs=20, window=(3, 3), stride=1, padding=AROUND)
@example(batch=1, size=(2, 1), inputs=3, outputs=8, window=(5, 5), stride=3, padding=((2, 2), (2, 2)))
@example(batch=2, size=(8, 6), inputs=3, outputs=24, window=(3, 3), stride=2, padding=SAME)
def test_the_convolution_and_its_gradients(batch, size, inputs, outputs, window, stride, padding):
    assume(has_output(size, window, stride, padding))
    x, kernel = values((batch, *size, inputs), 1), exact(values((*window, inputs, outputs), 2))
    assert_same_convolution(
        lambda x, kernel: kernels.convolution(x, kernel, stride, padding),
        lambda x, kernel: plain(x, kernel, stride, padding),
        x,
        kernel,
    )


@few
@given(
    batch=st.sampled_from([1, 2, 9]),
    size=st.tuples(sizes, sizes),
    groups=st.integers(1, 6),
    stride=st.integers(1, 2),
    padding=st.tuples(paddings, paddings),
)
@example(batch=2, size=(1, 1), groups=1, stride=1, padding=AROUND)
@example(batch=1, size=(1, 2), groups=3, stride=2, padding=AROUND)
@example(batch=9, size=(2, 2), groups=2, stride=2, padding=SAME)
@example(batch=2, size=(8, 6), groups=2, stride=2, padding=SAME)
def test_the_depthwise_convolution_and_its_gradients(batch, size, groups, stride, padding):
    assume(has_output(size, 3, stride, padding))
    channels = kernels.LANES * groups
    x, kernel = values((batch, *size, channels), 1), exact(values((3, 3, 1, channels), 2))
    assert_same_convolution(
        lambda x, kernel: kernels.depthwise_convolution(x, kernel, stride, padding),
        lambda x, kernel: plain(x, kernel, stride, padding, groups=channels),
        x,
        kernel,
    )


def test_rows_of_bands_and_large_images_meet():
    # more rows than one band of the depthwise kernels holds, and more pixels than one chunk of the products
    x, kernel = values((2, 96, 40, 96), 1), exact(values((3, 3, 1, 96), 2))
    for stride in (1, 2):
        assert_same_convolution(
            lambda x, kernel, stride=stride: kernels.depthwise_convolution(x, kernel, stride, ((1, 1), (1, 1))),
            lambda x, kernel, stride=stride: plain(x, kernel, stride, ((1, 1), (1, 1)), groups=96),
            x,
            kernel,
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("channels", [1, 3, 8, 24, 32, 144])
@pytest.mark.parametrize("pixels", [(1, 1, 1), (2, 5, 7), (3, 32, 33)])
def test_normalisation_and_its_gradients(activation, channels, pixels):
    x = values((*pixels, channels), 1, 3.0) + jnp.bfloat16(2)
    scale, bias, shift = (exact(values((channels,), seed)) for seed in (2, 3, 4))

    def native(x, scale, bias):
        return kernels.normalise_by_batch(x, scale, bias, shift, 1e-3, None, activation)

    def reference(x, scale, bias):
        y, mean, var = normalise_by_batch(x, scale, bias, shift, 1e-3, None)
        return ACTIVATIONS[activation](y), mean, var

    g, nothing = values(x.shape, 5), np.zeros(channels, np.float32)
    (y, *statistics), found = output_and_gradients(native, (x, scale, bias), (g, nothing, nothing))
    (expected, *wanted_statistics), wanted = output_and_gradients(
        reference, (exact(x), scale, bias), (exact(g), nothing, nothing)
    )
    # with one value to a channel everything cancels
    unit = 1.0 if np.prod(pixels) == 1 else 0.0
    assert_close(y, expected, ROUNDING)
    assert_close(statistics[0], wanted_statistics[0], 1e-5)
    assert_close(np.append(statistics[1], unit), np.append(wanted_statistics[1], unit), 1e-5)
    for index, tolerance in enumerate((2 * ROUNDING, 1e-4, 1e-4)):
        assert_close(np.append(np.asarray(found[index], np.float32), unit), np.append(wanted[index], unit), tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_normalisation_by_given_statistics_and_its_gradients(activation):
    x = values((2, 5, 7, 24), 1, 3.0)
    factor, offset = exact(values((24,), 2)), exact(values((24,), 3))

    def reference(x, factor, offset):
        return ACTIVATIONS[activation](x * factor.reshape(1, 1, 1, -1) + offset.reshape(1, 1, 1, -1))

    g = values(x.shape, 4)
    y, gradients = output_and_gradients(lambda *given: kernels.affine(*given, activation), (x, factor, offset), g)
    expected, wanted_gradients = output_and_gradients(reference, (exact(x), factor, offset), exact(g))
    assert_close(y, expected, ROUNDING)
    for found, wanted in zip(gradients, wanted_gradients, strict=True):
        assert_close(found, wanted, ROUNDING if found.dtype == jnp.bfloat16 else 1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("window", "inputs"), [(1, 24), (3, 24), (3, 1)])
def test_a_folded_convolution_is_the_steps_one_after_another(activation, window, inputs):
    x, kernel = values((2, 9, 8, 32 if inputs == 1 else inputs), 1), exact(values((window, window, inputs, 32), 2))
    factor, offset = exact(values((32,), 3)), exact(values((32,), 4))
    padding = ((window // 2, window // 2),) * 2
    assert kernels.is_depthwise(x, kernel) == (inputs == 1)

    def folded(x, kernel, factor, offset):
        return kernels.folded_convolution(x, kernel, factor, offset, 1, padding, activation)

    def in_steps(x, kernel, factor, offset, activation=activation):
        y = plain(x, kernel, 1, padding, groups=32 if inputs == 1 else 1)
        return ACTIVATIONS[activation](y * factor.reshape(1, 1, 1, -1) + offset.reshape(1, 1, 1, -1))

    g = values((*x.shape[:3], 32), 5)
    y, gradients = output_and_gradients(folded, (x, kernel, factor, offset), g)
    expected, wanted_gradients = output_and_gradients(in_steps, (exact(x), kernel, factor, offset), exact(g))
    before = in_steps(exact(x), kernel, factor, offset, "none")
    found = np.asarray(jax.jit(folded)(x, kernel, factor, offset), np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * ROUNDING * float(jnp.abs(before).max()))
    # rounding moves values over the corners of these two: the gradients of both are tested above
    if activation not in ("relu", "relu6"):
        assert_close(y, expected, 2 * ROUNDING)
        for found, wanted in zip(gradients, wanted_gradients, strict=True):
            assert_close(found, wanted, 4 * ROUNDING)


def test_silu_holds_for_all_magnitudes():
    x = jnp.asarray([-1e4, -90, -20, -1, -1e-3, 0, 1e-3, 1, 20, 90, 1e4], jnp.bfloat16).reshape(1, 1, 1, -1)
    one, zero = jnp.ones(11, jnp.float32), jnp.zeros(11, jnp.float32)
    y, gradients_of = jax.vjp(lambda x: kernels.affine(x, one, zero, "silu"), x)
    expected, expected_gradients_of = jax.vjp(silu, exact(x))
    np.testing.assert_allclose(exact(y), expected, rtol=ROUNDING, atol=1e-30)
    (found,), (wanted,) = gradients_of(jnp.ones_like(y)), expected_gradients_of(jnp.ones_like(expected))
    np.testing.assert_allclose(exact(found), wanted, rtol=ROUNDING, atol=1e-30)


def test_the_spread_of_large_values_is_not_lost():
    # E[x^2] - E[x]^2 in float32 would give a negative variance here
    x = values((4, 16, 16, 16), 1) * jnp.bfloat16(0.5) + jnp.bfloat16(64)
    one, zero, shift = jnp.ones(16, jnp.float32), jnp.zeros(16, jnp.float32), jnp.full(16, 64, jnp.float32)
    _, mean, var = kernels.normalise_by_batch(x, one, zero, shift, 1e-5, None, "none")
    wanted = np.asarray(x, np.float64).reshape(-1, 16)
    np.testing.assert_allclose(mean, wanted.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, wanted.var(0), rtol=1e-4)


def test_an_output_without_pixels_gives_nothing_back():
    x = values((1, 2, 2, 16), 1)
    for convolve, kernel in (
        (kernels.convolution, jnp.ones((3, 3, 16, 8), jnp.float32)),
        (kernels.depthwise_convolution, jnp.ones((3, 3, 1, 16), jnp.float32)),
    ):
        y, gradients_of = jax.vjp(lambda x, kernel, by=convolve: by(x, kernel, 1, ((0, 0), (0, 0))), x, kernel)
        assert y.size == 0
        for found in gradients_of(y):
            np.testing.assert_array_equal(exact(found), 0)


@pytest.mark.parametrize(
    ("channels", "side", "stride", "padding", "reason"),
    [
        (16, 7, 1, 1, "windows"),
        (16, 3, 3, 1, "strides"),
        (20, 5, 3, 1, "strides"),
        (16, 3, 1, 3, "padding"),
        (20, 3, 1, 3, "padding"),
        (16, 3, 1, -1, "padding"),
    ],
)
def test_what_the_depthwise_kernels_do_not_know_is_an_error(channels, side, stride, padding, reason):
    x, kernel = values((1, 8, 8, channels), 1), exact(values((side, side, 1, channels), 2))
    around = ((padding, padding),) * 2
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"depthwise {reason} ha"):
        kernels.depthwise_convolution(x, kernel, stride, around).block_until_ready()


def test_arrays_that_do_not_belong_together_are_an_error():
    x = values((2, 4, 4, 16), 1)
    for shape in ((3, 3, 17, 16), (3, 3, 8, 16)):
        with pytest.raises(jax.errors.JaxRuntimeError, match="do not belong together"):
            kernels.convolution(x, exact(values(shape, 2)), 1, AROUND).block_until_ready()
    with pytest.raises(jax.errors.JaxRuntimeError, match="do not belong together"):
        kernels.affine(x, jnp.ones(16, jnp.float32), jnp.ones(8, jnp.float32), "none").block_until_ready()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_not_a_number_stays_one_and_in_its_place(activation):
    x = values((1, 4, 4, 16), 1).at[0, 1, 2, 3].set(jnp.nan)
    one, zero = jnp.ones(16, jnp.float32), jnp.zeros(16, jnp.float32)
    mixing = jnp.eye(16, dtype=jnp.float32).reshape(1, 1, 16, 16)
    middle = jnp.zeros((3, 3, 1, 16), jnp.float32).at[1, 1].set(1)
    for found, reached in (
        (kernels.affine(x, one, zero, activation), np.s_[0, 1, 2, 3]),
        (kernels.folded_convolution(x, mixing, one, zero, 1, ((0, 0), (0, 0)), activation), np.s_[0, 1, 2]),
        (kernels.folded_convolution(x, middle, one, zero, 1, AROUND, activation), np.s_[0, :3, 1:, 3]),
    ):
        expected = np.zeros(found.shape, bool)
        expected[reached] = True
        np.testing.assert_array_equal(np.isnan(np.asarray(found, np.float32)), expected)


def test_relu6_ends_at_its_corners():
    x = jnp.asarray([-np.inf, -1, 0, 6, 7, np.inf], jnp.bfloat16).reshape(1, 1, 1, -1)
    y = kernels.affine(x, jnp.ones(6, jnp.float32), jnp.zeros(6, jnp.float32), "relu6")
    np.testing.assert_array_equal(exact(y).ravel(), [0, 0, 0, 6, 6, 6])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_batch_with_a_value_that_is_no_number_has_no_finite_result(activation):
    x = values((1, 4, 4, 16), 1).at[0, 1, 2, 3].set(jnp.nan)
    one, zero = jnp.ones(16, jnp.float32), jnp.zeros(16, jnp.float32)
    y, mean, var = kernels.normalise_by_batch(x, one, zero, zero, 1e-5, None, activation)
    for found in (y[..., 3], mean[3], var[3]):
        assert np.isnan(np.asarray(found, np.float32)).all()
    assert np.isfinite(np.asarray(y[..., :3], np.float32)).all()


@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_the_same_bits_come_out_every_time(kind):
    x, kernel = values((8, 28, 28, 48), 1), exact(values((3, 3, 48 if kind == "dense" else 1, 48), 2))
    convolve = kernels.convolution if kind == "dense" else kernels.depthwise_convolution
    scale, bias, shift = (exact(values((48,), seed)) for seed in (3, 4, 5))

    def loss(x, kernel, scale, bias):
        y, _, _ = kernels.normalise_by_batch(convolve(x, kernel, 1, AROUND), scale, bias, shift, 1e-3, None, "silu")
        return jnp.sum(exact(y) ** 2)

    run = jax.jit(jax.grad(loss, (0, 1, 2, 3)))
    first = jax.tree.map(np.asarray, run(x, kernel, scale, bias))
    for _ in range(5):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, run(x, kernel, scale, bias)), first)
