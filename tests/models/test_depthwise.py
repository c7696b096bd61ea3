import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cxr_jax.devices import replicated, sharded
from cxr_jax.models.kernels.depthwise import (
    depthwise_convolution,
    depthwise_on_gpu,
    grouped_depthwise,
    shifted_depthwise,
)
from cxr_jax.models.kernels.depthwise_weight_gradient import is_possible, weight_gradient
from cxr_jax.models.kernels.platform import every_platform
from cxr_jax.models.layers import padding_of


@st.composite
def convolutions(draw):
    """An input shape, a window, a stride and a padding whose output is not empty."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(1, 11), st.integers(1, 5)))
    window, stride = draw(st.sampled_from([3, 5])), draw(st.sampled_from([1, 2]))
    rule = draw(st.sampled_from(["symmetric", "same", "any"]))
    amount = st.integers(0, window)
    if rule == "any":
        padding = draw(st.tuples(st.tuples(amount, amount), st.tuples(amount, amount)))
    else:
        padding = padding_of(rule, shape[1:3], window, stride)
    assume(all(size + sum(pads) >= window for size, pads in zip(shape[1:3], padding, strict=True)))
    return shape, window, stride, padding


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def output_and_gradients(convolution, x, kernel, output_gradient, stride, padding):
    y, pull_back = jax.vjp(functools.partial(convolution, stride=stride, padding=padding), x, kernel)
    return y, *pull_back(output_gradient)


def assert_same(convolution, shape, window, stride, padding, dtype, tolerance):
    random = np.random.default_rng(sum(shape) + window)
    x = jnp.asarray(random.normal(size=shape), dtype)
    kernel = jnp.asarray(random.normal(size=(window, window, 1, shape[-1])), dtype)
    size = [(length + sum(pads) - window) // stride + 1 for length, pads in zip(shape[1:3], padding, strict=True)]
    output_gradient = jnp.asarray(random.normal(size=(shape[0], *size, shape[-1])), dtype)
    found = output_and_gradients(convolution, x, kernel, output_gradient, stride, padding)
    expected = output_and_gradients(grouped_depthwise, x, kernel, output_gradient, stride, padding)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1.0, np.abs(theirs).max()))


@settings(max_examples=10, deadline=None)
@given(convolutions())
def test_output_and_gradients_equal_the_grouped_convolution(drawn):
    with jax.enable_x64(True):
        assert_same(shifted_depthwise, *drawn, jnp.float64, 1e-12)


@settings(max_examples=10, deadline=None)
@given(convolutions())
def test_the_kernel_for_gpus_gives_the_gradients_of_the_grouped_convolution(drawn):
    with jax.enable_x64(True):
        assert_same(functools.partial(depthwise_on_gpu, interpreted=True), *drawn, jnp.float64, 1e-12)


@pytest.mark.parametrize("shape", [(8, 40, 40, 70), (6, 7, 7, 130)], ids=["several parts", "images in groups"])
def test_the_kernel_for_gpus_sums_over_parts_groups_and_blocks_of_channels(shape):
    with jax.enable_x64(True):
        given = (shape, 3, 1, ((1, 1), (1, 1)), jnp.float64, 1e-12)
        assert_same(functools.partial(depthwise_on_gpu, interpreted=True), *given)


def test_the_kernel_for_gpus_leaves_a_batch_where_it_is():
    devices = jax.devices()[:2]
    random = np.random.default_rng(0)
    x, gradient = (random.normal(size=(8, 12, 12, 8)).astype(np.float32) for _ in range(2))
    given = {"window": 3, "stride": 1, "padding": ((1, 1), (1, 1)), "dtype": jnp.float32, "interpreted": True}
    sums = functools.partial(weight_gradient, **given)
    program = jax.jit(sums, in_shardings=(sharded(devices),) * 2, out_shardings=replicated(devices)).lower(x, gradient)
    compiled = program.compile()
    assert "all-reduce" in compiled.as_text() and "all-gather" not in compiled.as_text()
    np.testing.assert_allclose(compiled(x, gradient), sums(x, gradient), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rule", ["symmetric", "same"])
def test_float32(rule, stride):
    padding = padding_of(rule, (17, 24), 3, stride)
    assert_same(depthwise_convolution, (4, 17, 24, 16), 3, stride, padding, jnp.float32, 1e-5)


def test_a_kernel_by_hand():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 1].set(2.0).at[1, 1].set(1.0)
    y = shifted_depthwise(x, kernel, stride=1, padding=((1, 1), (1, 1)))
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1, 2], [3, 6, 9], [12, 15, 18]])


def test_every_platform_gets_the_convolution_that_suits_it():
    x, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 1, 4))
    step = jax.grad(
        lambda x, kernel: depthwise_convolution(x, kernel, stride=2, padding=((0, 1), (0, 1))).sum(), (0, 1)
    )
    with every_platform(True):
        traced = jax.jit(step).trace(x, kernel)
    assert "convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    for_gpus = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "feature_group_count = 4" in for_gpus
    # newer versions of jax lower Pallas' kernels beside a GPU alone
    assert ("depthwise_weight_gradient" in for_gpus) == is_possible() == ("batch_group_count = 4" not in for_gpus)
    assert "feature_group_count = 4" in traced.lower(lowering_platforms=("tpu",)).as_text()


def test_padding_wider_than_half_the_window():
    x = jnp.ones((1, 1, 1, 2))
    y = shifted_depthwise(x, jnp.ones((3, 3, 1, 2)), stride=1, padding=((2, 2), (2, 2)))
    np.testing.assert_array_equal(y, np.ones((1, 3, 3, 2)))
