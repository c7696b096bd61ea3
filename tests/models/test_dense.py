import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cxr_jax.models.kernels.dense import FEW_CHANNELS, convolution_by_rows, dense_convolution, plain_convolution
from cxr_jax.models.kernels.platform import every_platform
from cxr_jax.models.layers import padding_of


@st.composite
def convolutions(draw):
    """An input shape, a window, output channels, a stride and a padding whose output is not empty."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)))
    window, outputs = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 4))
    stride, rule = draw(st.sampled_from([1, 2])), draw(st.sampled_from(["symmetric", "same", "any"]))
    amount = st.integers(0, window)
    if rule == "any":
        padding = draw(st.tuples(st.tuples(amount, amount), st.tuples(amount, amount)))
    else:
        padding = padding_of(rule, shape[1:3], window, stride)
    assume(all(size + sum(pads) >= window for size, pads in zip(shape[1:3], padding, strict=True)))
    return shape, window, outputs, stride, padding


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def output_and_gradients(convolution, x, kernel, output_gradient, stride, padding):
    y, pull_back = jax.vjp(functools.partial(convolution, stride=stride, padding=padding), x, kernel)
    return y, *pull_back(output_gradient)


def arguments(shape, window, outputs, stride, padding, dtype):
    random = np.random.default_rng(sum(shape) + window)
    size = [(length + sum(pads) - window) // stride + 1 for length, pads in zip(shape[1:3], padding, strict=True)]
    shapes = shape, (window, window, shape[-1], outputs), (shape[0], *size, outputs)
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


def assert_close(found, expected, tolerance):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1.0, np.abs(theirs).max()))


@settings(max_examples=10, deadline=None)
@given(convolutions())
def test_output_and_gradients_equal_xlas(drawn):
    with jax.enable_x64(True):
        given, (stride, padding) = arguments(*drawn, jnp.float64), drawn[3:]
        expected = output_and_gradients(plain_convolution, *given, stride, padding)
        assert_close(output_and_gradients(convolution_by_rows, *given, stride, padding), expected, 1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_float32(stride):
    padding = padding_of("same", (21, 16), 3, stride)
    given = arguments((4, 21, 16, 12), 3, 20, stride, padding, jnp.float32)
    expected = output_and_gradients(plain_convolution, *given, stride, padding)
    assert_close(output_and_gradients(dense_convolution, *given, stride, padding), expected, 1e-5)


def weight_gradient(x, kernel):
    return jax.grad(lambda kernel: dense_convolution(x, kernel, stride=1, padding=((1, 1), (1, 1))).sum())(kernel)


def lowered(channels, platform):
    x, kernel = jnp.zeros((2, 8, 8, channels)), jnp.zeros((3, 3, channels, 4))
    with every_platform(True):
        return jax.jit(weight_gradient).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()


def test_every_platform_gets_the_gradient_that_suits_it():
    assert "stablehlo.while" in lowered(FEW_CHANNELS + 1, "cpu")
    for platform in ("cuda", "tpu"):
        assert "stablehlo.while" not in lowered(FEW_CHANNELS + 1, platform)
    assert "stablehlo.while" not in lowered(FEW_CHANNELS, "cpu")


def test_a_batch_spread_over_devices_gives_the_same_gradient_and_stays_there():
    devices = np.array(jax.devices()[:4])
    x, kernel, _ = arguments((8, 9, 9, 12), 3, 10, 1, ((1, 1), (1, 1)), jnp.float32)
    expected = jax.grad(lambda kernel: jnp.sum(jnp.sin(plain_convolution(x, kernel, stride=1, padding=((1, 1),) * 2))))(
        kernel
    )

    def gradient(x, kernel):
        def loss(kernel):
            return jnp.sum(jnp.sin(dense_convolution(x, kernel, stride=1, padding=((1, 1), (1, 1)))))

        return jax.grad(loss)(kernel)

    mesh = Mesh(devices, ("batch",))
    sharded, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
    spread = jax.jit(gradient, in_shardings=(sharded, whole), out_shardings=whole)
    assert "all-gather" not in spread.lower(x, kernel).compile().as_text()
    assert_close([spread(x, kernel)], [expected], 1e-5)

    mapped = jax.pmap(
        lambda x, kernel: lax.psum(gradient(x, kernel), "batch"),
        "batch",
        in_axes=(0, None),
        out_axes=None,
        devices=list(devices),
    )
    assert_close([mapped(x.reshape(4, 2, 9, 9, 12), kernel)], [expected], 1e-5)
