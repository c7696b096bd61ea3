"""In bfloat16 each layer rounds its result once: what it adds up, it adds up in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax.models.activations import silu
from cxr_jax.models.blocks import SqueezeExcitation
from cxr_jax.models.layers import BatchNorm, Convolution, DepthwiseConvolution, LayerRules, Mode, PointwiseConvolution
from cxr_jax.models.network import pool
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import batch_stats_of, merge_model, split_model

RULES = LayerRules(padding="same", activation=silu, epsilon=1e-3)
ROUNDING = 2.0**-8
"""Relative error of one rounding to bfloat16."""


def layers():
    generator = np.random.default_rng(0)
    return {
        "dense": Convolution(16, 8, 3, 2, RULES, generator),
        "pointwise": PointwiseConvolution(16, 8, RULES, generator, bias=True),
        "depthwise": DepthwiseConvolution(16, 3, 1, RULES, generator),
    }


def images(dtype, size=48):
    x = np.random.default_rng(1).uniform(0, 1, (4, size, size, 16)).astype(np.float32)
    return jnp.asarray(x).astype(jnp.bfloat16).astype(dtype)  # the same values in both precisions


def relative_error(found, expected):
    found, expected = (np.asarray(value, np.float32) for value in (found, expected))
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["dense", "pointwise", "depthwise"])
def test_outputs_and_gradients_are_rounded_and_not_summed_in_bfloat16(name):
    graphdef, state = nnx.split(layers()[name])

    @jax.jit
    def run(state, x):
        def loss_of(state, x):
            y = nnx.merge(graphdef, state)(x)
            # a gradient of one sign everywhere: a sum of thousands of values in bfloat16 would stop growing
            return jnp.sum(y.astype(jnp.float32)), y

        (_, y), gradients = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(state, x)
        return y, gradients

    # kernels that bfloat16 holds exactly, so that only the arithmetic differs
    state = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), state)
    exact, (exact_kernel, exact_input) = run(state, images(jnp.float32))
    rounded, (kernel, of_input) = run(state, images(jnp.bfloat16))
    assert rounded.dtype == of_input.dtype == jnp.bfloat16
    assert relative_error(rounded, exact) < ROUNDING
    assert relative_error(of_input, exact_input) < ROUNDING
    for found, expected in zip(jax.tree.leaves(kernel), jax.tree.leaves(exact_kernel), strict=True):
        assert found.dtype == jnp.float32
        assert relative_error(found, expected) < ROUNDING


def test_statistics_and_means_are_those_of_float32():
    x = images(jnp.bfloat16, size=64) + jnp.asarray(3, jnp.bfloat16)
    layer = BatchNorm(16, RULES)
    y = layer(x, Mode(batch_statistics=True))
    wide = np.asarray(x, np.float32)
    assert y.dtype == jnp.bfloat16
    assert layer.mean[...].dtype == layer.var[...].dtype == jnp.float32
    np.testing.assert_allclose(layer.mean[...], 0.1 * wide.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * wide.var((0, 1, 2), ddof=1), rtol=1e-5)
    assert relative_error(y, (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-3)) < ROUNDING
    assert pool(x).dtype == jnp.float32
    np.testing.assert_allclose(pool(x), wide.mean((1, 2)), rtol=1e-5)


def test_squeeze_and_excitation_keeps_the_dtype():
    layer = SqueezeExcitation(16, 4, RULES, np.random.default_rng(0))
    x = images(jnp.bfloat16)
    assert layer(x).dtype == jnp.bfloat16
    assert relative_error(layer(x), layer(x.astype(jnp.float32))) < 4 * ROUNDING


def test_the_gradients_of_squeeze_and_excitation_are_not_summed_in_bfloat16():
    """That of a factor is a sum over thousands of pixels, here of one sign, which would stop growing."""
    graphdef, state = nnx.split(SqueezeExcitation(16, 4, RULES, np.random.default_rng(0)))

    @jax.jit
    def gradients(state, x):
        return jax.grad(lambda state: jnp.sum(nnx.merge(graphdef, state)(x).astype(jnp.float32)))(state)

    state = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), state)
    rounded, exact = (jax.tree.leaves(gradients(state, images(dtype))) for dtype in (jnp.bfloat16, jnp.float32))
    for found, expected in zip(rounded, exact, strict=True):
        assert relative_error(found, expected) < 4 * ROUNDING


@pytest.mark.parametrize("name", ["mobilenetv2_tiny", "efficientnetv2_tiny"])
def test_a_whole_network_keeps_its_parameters_and_statistics_in_float32(name):
    graphdef, params, batch_stats = split_model(build_model(name, classes=2))
    x = jax.random.normal(jax.random.key(0), (8, 64, 64, 3))

    @jax.jit
    def run(x):
        def loss_of(params):
            model = merge_model(graphdef, params, batch_stats)
            logits = model(x, train=True)
            return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[:, 0]), (logits, batch_stats_of(model))

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    (_, (exact, _)), _ = run(x)
    (_, (logits, moved)), gradients = run(x.astype(jnp.bfloat16))
    assert {value.dtype for value in (logits, *moved.values(), *gradients.values())} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(logits, exact, atol=0.02)
    assert not np.array_equal(logits, exact)
