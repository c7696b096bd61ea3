"""Pools and convolutions with a bias are the same by the native kernels as by XLA, gradients and all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.models.activations import relu, relu6, silu
from cxr_jax.models.layers import (
    Convolution,
    LayerRules,
    Mode,
    PointwiseConvolution,
    average_pool,
    concatenate,
    max_pool,
)

pytestmark = pytest.mark.usefixtures("native_kernels")

NATIVE, BY_XLA = Mode(native=True), Mode()
ROUNDING = 2.0**-7


def drawn(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.bfloat16)


def assert_same(by, x, *parameters):
    """`by(mode, x, *parameters)` in bfloat16 by the kernels is what XLA makes of the same values in float32."""
    found, gradients_of = jax.jit(lambda *given: jax.vjp(lambda *values: by(NATIVE, *values), *given))(x, *parameters)
    expected, expected_of = jax.vjp(lambda *values: by(BY_XLA, *values), x.astype(jnp.float32), *parameters)
    assert found.dtype == jnp.bfloat16
    g = drawn(found.shape, 9)
    pairs = zip((found, *gradients_of(g)), (expected, *expected_of(g.astype(jnp.float32))), strict=True)
    for ours, theirs in pairs:
        largest = np.abs(theirs).max(initial=1e-20)
        np.testing.assert_allclose(np.asarray(ours, np.float32), theirs, rtol=0, atol=2 * ROUNDING * largest)


@pytest.mark.parametrize("rule", ["symmetric", "same", "valid", "ceil"])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), (3, 1), (5, 3)])
def test_the_largest_value_of_a_window(rule, window, stride):
    # whole numbers: of equal values of a window the first is given the gradient by both
    x = jnp.round(drawn((2, 9, 12, 20), 1))
    assert_same(lambda mode, x: max_pool(x, rule, mode, window, stride), x)


@pytest.mark.parametrize("counts_padding", [False, True])
@pytest.mark.parametrize(("rule", "window", "stride"), [("symmetric", 3, 1), ("valid", 2, 2), ("same", 5, 3)])
def test_the_mean_of_a_window(rule, window, stride, counts_padding):
    def mean(mode, x):
        return average_pool(x, rule, mode, window, stride, counts_padding=counts_padding)

    assert_same(mean, drawn((2, 9, 12, 20), 1))


@pytest.mark.parametrize("activation", [relu, relu6, silu, jax.nn.leaky_relu])
@pytest.mark.parametrize("window", [1, 3, (1, 7)])
def test_a_convolution_with_a_bias_is_activated(activation, window):
    rules = LayerRules("symmetric", relu, epsilon=0.0)

    def by(mode, x, kernel, bias):
        generator = np.random.default_rng(0)
        if window == 1:
            layer = PointwiseConvolution(16, 24, rules, generator, bias=True)
        else:
            layer = Convolution(16, 24, window, 1, rules, generator, bias=True)
        layer.kernel.set_value(kernel.astype(jnp.bfloat16).astype(kernel.dtype))
        layer.bias.set_value(bias)
        return layer.activated(x, mode, activation)

    # far from the corners of relu and relu6, so that rounding moves nothing over them
    bias = jnp.asarray([-2.0, 3.0, 8.0] * 8)
    sides = (window, window) if isinstance(window, int) else window
    kernel = jnp.asarray(np.random.default_rng(2).standard_normal((*sides, 16, 24)) * 0.02, jnp.float32)
    assert_same(by, drawn((2, 9, 12, 16), 1), kernel, bias)


def test_a_bias_without_an_activation_is_added():
    rules = LayerRules("symmetric", relu, epsilon=0.0)
    layer = PointwiseConvolution(16, 24, rules, np.random.default_rng(0), bias=True)
    layer.bias.set_value(jnp.arange(24, dtype=jnp.float32))
    x = drawn((2, 5, 4, 16), 1)
    found, expected = layer.convolved(x, NATIVE), layer(x.astype(jnp.float32))
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=0, atol=ROUNDING * 30)


def test_maps_stand_side_by_side_bit_for_bit():
    parts = [drawn((2, 5, 4, channels), channels) for channels in (1, 24, 7)]

    def by(mode, *parts):
        return jax.vjp(lambda *values: concatenate(values, mode), *parts)

    found, gradients_of = by(NATIVE, *parts)
    expected, expected_of = by(BY_XLA, *parts)
    g = drawn(found.shape, 9)
    for ours, theirs in zip((found, *gradients_of(g)), (expected, *expected_of(g)), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(ours, np.float32), np.asarray(theirs, np.float32))
