import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from cxr_jax.models.activations import relu6, silu
from cxr_jax.models.layers import BatchNorm, Classifier, Convolution, LayerRules, Mode, PointwiseConvolution, padding_of
from cxr_jax.models.regularisation import StochasticDepth, dropout
from cxr_jax.models.state import batch_stats_of, merge_model, split_model

RULES = LayerRules(padding="symmetric", activation=relu6, epsilon=1e-3)
TRAINING = Mode(batch_statistics=True)


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2]))
def test_the_same_rule_is_tensorflows(height, width, window, stride):
    expected = lax.padtype_to_pads((height, width), (window, window), (stride, stride), "SAME")
    assert padding_of("same", (height, width), window, stride) == tuple(map(tuple, expected))


def test_the_two_rules_differ_where_the_networks_differ():
    assert padding_of("symmetric", (224, 225), 3, 2) == ((1, 1), (1, 1))
    assert padding_of("same", (224, 225), 3, 2) == ((0, 1), (1, 1))
    assert padding_of("same", (224, 225), 3, 1) == padding_of("symmetric", (224, 225), 3, 1)


def test_activations():
    x = jnp.array([-1.0, 0.0, 2.0, 6.0, 7.0])
    np.testing.assert_array_equal(relu6(x), [0, 0, 2, 6, 6])
    np.testing.assert_allclose(silu(x), x / (1 + np.exp(-x)), rtol=1e-6)


def batch_norm(channels, mean, var):
    layer = BatchNorm(channels, RULES)
    random = np.random.default_rng(3)
    layer.scale.set_value(jnp.asarray(random.uniform(0.5, 1.5, channels), jnp.float32))
    layer.bias.set_value(jnp.asarray(random.normal(size=channels), jnp.float32))
    layer.mean.set_value(jnp.full((channels,), mean, jnp.float32))
    layer.var.set_value(jnp.full((channels,), var, jnp.float32))
    return layer


def reference(layer, x, mean, var):
    """What the layer should give, computed in float64."""
    scale, bias = (np.asarray(leaf[...], np.float64) for leaf in (layer.scale, layer.bias))
    return (np.asarray(x, np.float64) - mean) / np.sqrt(var + 1e-3) * scale + bias


def test_batch_norm_in_evaluation_uses_and_keeps_the_running_statistics():
    layer = batch_norm(4, mean=0.7, var=2.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 4)), jnp.float32)
    np.testing.assert_allclose(layer(x, Mode()), reference(layer, x, 0.7, 2.0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layer.mean[...], np.full(4, 0.7, np.float32))
    np.testing.assert_array_equal(layer.var[...], np.full(4, 2.0, np.float32))


def test_batch_norm_in_training_normalises_by_the_biased_and_keeps_the_unbiased_variance():
    layer = batch_norm(4, mean=0.5, var=2.0)
    x = np.random.default_rng(0).normal(1.0, 3.0, size=(2, 3, 2, 4))
    mean, biased, unbiased = x.mean((0, 1, 2)), x.var((0, 1, 2)), x.var((0, 1, 2), ddof=1)
    expected = reference(layer, x, mean, biased)
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32), TRAINING), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.mean[...], 0.9 * 0.5 + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 * 2.0 + 0.1 * unbiased, rtol=1e-5)


def test_batch_norm_keeps_its_digits_far_from_zero():
    # the variance computed as E[x^2] - E[x]^2 would be lost altogether
    layer = batch_norm(2, mean=30_001.0, var=1.0)
    x = np.random.default_rng(0).normal(30_000.0, 0.5, size=(8, 16, 16, 2)).astype(np.float32)
    exact = x.astype(np.float64)
    layer(jnp.asarray(x), TRAINING)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * exact.var((0, 1, 2), ddof=1), rtol=1e-5)
    naive = np.mean(np.square(x), (0, 1, 2)) - np.square(np.mean(x, (0, 1, 2)))
    assert np.abs(naive / exact.var((0, 1, 2)) - 1).max() > 0.1


def test_batch_norm_gradient_counts_the_statistics():
    with jax.enable_x64(True):
        layer = BatchNorm(2, RULES)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 2)))
        weight = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
        graphdef, *arrays = split_model(layer)
        params, batch_stats = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), arrays)

        def loss(x):
            return jnp.sum(weight * merge_model(graphdef, params, batch_stats)(x, TRAINING))

        gradient, step = jax.grad(loss)(x), 1e-6
        for place in [(0, 0, 0, 0), (2, 1, 1, 1)]:
            slope = (loss(x.at[place].add(step)) - loss(x.at[place].add(-step))) / (2 * step)
            np.testing.assert_allclose(gradient[place], slope, rtol=1e-6)


def test_batch_norm_over_a_mapped_axis_sees_the_whole_batch():
    graphdef, params, batch_stats = split_model(batch_norm(3, mean=0.2, var=1.5))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3, 3, 3)), jnp.float32)

    def run(x, axis_name):
        layer = merge_model(graphdef, params, batch_stats)
        return layer(x, Mode(True, axis_name=axis_name)), batch_stats_of(layer)

    shared, shared_stats = jax.vmap(lambda part: run(part, "parts"), axis_name="parts")(x)
    whole, whole_stats = run(x.reshape(8, 3, 3, 3), None)
    np.testing.assert_allclose(shared.reshape(whole.shape), whole, rtol=1e-5, atol=1e-6)
    for name, value in whole_stats.items():
        np.testing.assert_allclose(shared_stats[name], jnp.broadcast_to(value, (4, 3)), rtol=1e-6)


def test_a_single_value_a_channel_has_no_unbiased_variance_but_trains():
    layer = BatchNorm(2, RULES)
    y = layer(jnp.ones((1, 1, 1, 2)), TRAINING)
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(layer.var[...]).all()


@pytest.mark.parametrize("lowering", ["fast", "plain"])
def test_pointwise_convolution_mixes_channels(lowering):
    rules = LayerRules(padding="same", activation=silu, epsilon=1e-3, lowering=lowering)
    layer = PointwiseConvolution(3, 5, rules, np.random.default_rng(0), bias=True)
    layer.bias.set_value(jnp.arange(5.0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3, 3)), jnp.float32)
    expected = np.einsum("bhwi,io->bhwo", x, layer.kernel[0, 0]) + np.arange(5.0)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_a_dense_convolution_by_hand():
    layer = Convolution(2, 1, 3, 2, LayerRules(padding="same", activation=silu, epsilon=1e-3), np.random.default_rng(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 2)), jnp.float32)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    kernel = np.asarray(layer.kernel[..., 0])
    expected = [[(padded[0, r : r + 3, c : c + 3] * kernel).sum() for c in (0, 2)] for r in (0, 2)]
    np.testing.assert_allclose(layer(x)[0, :, :, 0], expected, rtol=1e-5)


def test_initial_values_have_the_stated_spread():
    generator = np.random.default_rng(0)
    assert abs(float(jnp.std(Convolution(16, 64, 3, 1, RULES, generator).kernel[...])) - (2 / (9 * 64)) ** 0.5) < 1e-3
    kernel = Classifier(100, 50, generator).kernel[...]
    assert 0.099 < float(jnp.abs(kernel).max()) <= 0.1


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_dropout_keeps_the_mean_and_drops_the_rate():
    y = dropout(jnp.ones((64, 500)), 0.3, keys_of(64))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(float(jnp.mean(y == 0)) - 0.3) < 0.01
    assert abs(float(jnp.mean(y)) - 1) < 0.02


def test_dropout_follows_the_example_and_not_its_place():
    x, keys = jnp.ones((6, 40)), keys_of(6)
    order = jnp.array([4, 2, 0, 5, 1, 3])
    np.testing.assert_array_equal(dropout(x, 0.5, keys)[order], dropout(x, 0.5, keys[order]))
    rows = dropout(x, 0.5, keys)
    assert len(np.unique(rows, axis=0)) == 6


def test_stochastic_depth_drops_whole_examples():
    y = StochasticDepth(0.25, 1)(jnp.ones((2000, 2, 2, 3)), Mode(keys=keys_of(2000)))
    per_example = y.reshape(2000, -1)
    np.testing.assert_array_equal(per_example, per_example[:, :1] * jnp.ones((1, 12)))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(float(jnp.mean(y == 0)) - 0.25) < 0.04


def test_stochastic_depth_follows_the_example_and_differs_between_blocks():
    x, keys = jnp.ones((100, 1, 1, 1)), keys_of(100)
    first = StochasticDepth(0.5, 1)(x, Mode(keys=keys))
    reversed_first = StochasticDepth(0.5, 1)(x, Mode(keys=keys[::-1]))
    np.testing.assert_array_equal(first, reversed_first[::-1])
    assert (first != StochasticDepth(0.5, 2)(x, Mode(keys=keys))).any()


def test_stochastic_depth_is_off_without_keys_or_rate():
    x = jnp.ones((8, 1, 1, 1))
    np.testing.assert_array_equal(StochasticDepth(0.9, 1)(x, TRAINING), x)
    np.testing.assert_array_equal(StochasticDepth(0.0, 1)(x, Mode(keys=keys_of(8))), x)
