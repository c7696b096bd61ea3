"""The written-down gradient is the one that differentiation gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.models.kernels.batch_norm import affine, normalise_by_batch

EPSILON = 1e-3


def reference(x, scale, bias):
    """As in the paper, differentiated by jax."""
    mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    spread = [value.reshape(1, 1, 1, -1) for value in (mean, var, scale, bias)]
    return (x - spread[0]) / jnp.sqrt(spread[1] + EPSILON) * spread[2] + spread[3]


@jax.jit
def found_and_expected(x, scale, bias, shift, weights):
    """Pairs of outputs and of gradients, and the statistics that were found, by one program."""
    found, pull = jax.vjp(lambda *a: normalise_by_batch(*a, shift, EPSILON, None)[0], x, scale, bias)
    expected, pull_expected = jax.vjp(reference, x, scale, bias)
    _, mean, var = normalise_by_batch(x, scale, bias, shift, EPSILON, None)
    return [(found, expected), *zip(pull(weights), pull_expected(weights), strict=True)], mean, var


def drawn(shape, seed, offset=0.0):
    random = np.random.default_rng(seed)
    x = random.normal(size=shape) * random.uniform(0.1, 3) + offset
    vectors = [random.normal(size=shape[-1]) for _ in range(3)]
    return x, *vectors, random.normal(size=shape)


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(2, 12), st.integers(1, 8)),
    st.floats(-50, 50),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=12)
def test_output_and_gradients_are_those_of_the_formula(shape, offset, seed):
    x, scale, bias, shift, weights = drawn(shape, seed, offset)
    with jax.enable_x64(True):
        pairs, mean, var = found_and_expected(x, scale, bias, shift, weights)
    for value, other in pairs:
        np.testing.assert_allclose(value, other, rtol=1e-6, atol=1e-7)
    values = np.asarray(x)
    np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(var, values.var((0, 1, 2)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("devices", [2, 8])
def test_devices_under_pmap_share_their_statistics_and_gradients(devices):
    with jax.enable_x64(True):
        x, scale, bias, shift, weights = map(jnp.asarray, drawn((8, 3, 4, 5), 0))
        shares = [value.reshape(devices, 8 // devices, *value.shape[1:]) for value in (x, weights)]

        def loss(x, scale, bias, weights):
            y, *_ = normalise_by_batch(x, scale, bias, shift, EPSILON, "batch")
            return jax.lax.pmean(jnp.sum(y * weights), "batch")

        mapped = functools.partial(jax.pmap, axis_name="batch", in_axes=(0, None, None, 0))
        gradients = mapped(jax.grad(loss, (0, 1, 2)))(shares[0], scale, bias, shares[1])
        of_x, of_scale, of_bias = map(np.asarray, gradients)

        def whole(x, scale, bias):
            return jnp.sum(reference(x, scale, bias) * weights) / devices

        expected = jax.grad(whole, (0, 1, 2))(x, scale, bias)
    np.testing.assert_allclose(of_x.reshape(x.shape) / devices, expected[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(of_scale.mean(0), expected[1], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(of_bias.mean(0), expected[2], rtol=1e-8, atol=1e-10)


def test_bfloat16_is_rounded_once():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.bfloat16)
    factor, offset = jnp.asarray([1.5, -2.0, 0.1], jnp.float32), jnp.asarray([100.0, 0.0, -3.0], jnp.float32)
    expected = (np.asarray(x, np.float32) * np.asarray(factor) + np.asarray(offset)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(affine(x, factor, offset), expected)
