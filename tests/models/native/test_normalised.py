"""What is normalised while the next convolution loads it has the bits of one step after another, gradients and all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cxr_jax.models.activations import relu, relu6, silu
from cxr_jax.models.blocks import ActivatedDepthwiseSeparable, BlockShape, DepthwiseSeparable, InvertedResidual
from cxr_jax.models.kernels.depthwise import output_size
from cxr_jax.models.kernels.native import operations as kernels
from cxr_jax.models.kernels.native.normalised import can_normalise, normalised_convolution
from cxr_jax.models.layers import BatchNorm, LayerRules, Mode

pytestmark = pytest.mark.usefixtures("native_kernels")

sizes = st.integers(1, 15)
NOWHERE = ((0, 0), (0, 0))


def drawn(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.bfloat16)


def parameters(channels):
    return [drawn((channels,), seed).astype(jnp.float32) for seed in (2, 3, 4)]


def assert_same_bits(found, expected):
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(*map(np.asarray, (one, other))), found, expected)


@settings(max_examples=8)
@given(
    batch=st.sampled_from([1, 2, 9]),
    size=st.tuples(sizes, sizes),
    groups=st.integers(1, 5),
    outputs=st.integers(1, 70),
    stride=st.integers(0, 2),  # 0: a 1x1 convolution
    top=st.integers(0, 1),
    activation=st.sampled_from(["none", "relu", "relu6", "silu"]),
)
@example(batch=3, size=(15, 9), groups=2, outputs=24, stride=0, top=0, activation="relu6")
@example(batch=1, size=(1, 1), groups=16, outputs=1, stride=0, top=0, activation="silu")
@example(batch=2, size=(9, 8), groups=3, outputs=1, stride=2, top=0, activation="relu6")
def test_one_pass_is_the_steps_one_after_another(batch, size, groups, outputs, stride, top, activation):
    channels = kernels.LANES * groups
    padding = ((top, 1), (top, 1)) if stride else NOWHERE
    shape, step = ((3, 3, 1, channels), stride) if stride else ((1, 1, channels, outputs), 1)
    assume(all(output_size(length, shape[0], step, padding[0]) > 0 for length in size))
    x, kernel = drawn((batch, *size, channels), 1), drawn(shape, 5).astype(jnp.float32)
    scale, bias, shift = parameters(channels)
    convolve = kernels.depthwise_convolution if stride else kernels.convolution
    assert can_normalise(kernel, step, padding)

    def in_one_pass(x, scale, bias, kernel):
        return normalised_convolution(x, scale, bias, shift, kernel, 1e-3, None, activation, step, padding)

    def in_steps(x, scale, bias, kernel):
        y, mean, var = kernels.normalise_by_batch(x, scale, bias, shift, 1e-3, None, activation)
        return convolve(y, kernel, step, padding), mean, var

    def results(function):
        outputs, gradients_of = jax.vjp(function, x, scale, bias, kernel)
        return outputs, gradients_of((outputs[0], *2 * [jnp.zeros(channels)]))

    assert_same_bits(jax.jit(lambda: results(in_one_pass))(), jax.jit(lambda: results(in_steps))())


def block_results(block, x, devices):
    """The output of `block`, the gradients of its input and parameters, and its moved statistics, by one program."""
    graph, params, statistics = nnx.split(block, nnx.Param, nnx.BatchStat)
    mode = Mode(batch_statistics=True, native=True, axis_name="devices" if devices > 1 else None)

    def run(x):
        def loss(x, params):
            merged = nnx.merge(graph, params, statistics, copy=True)
            y = merged(x, mode)
            return jnp.sum(y.astype(jnp.float32) ** 2), (y, nnx.state(merged, nnx.BatchStat))

        return jax.grad(loss, (0, 1), has_aux=True)(x, params)

    if devices == 1:
        return jax.jit(run)(x), jax.jit(run).lower(x).as_text()
    shared = x.reshape(devices, -1, *x.shape[1:])
    mapped = jax.pmap(run, axis_name="devices", devices=jax.devices()[:devices])
    return mapped(shared), mapped.lower(shared).as_text()


@pytest.mark.parametrize(
    ("kind", "shape", "activation", "devices", "passes"),
    [
        (InvertedResidual, BlockShape(16, 16, 1, 4), relu6, 1, ["depthwise", "convolution"]),
        (InvertedResidual, BlockShape(16, 24, 2, 4), relu6, 2, ["depthwise", "convolution"]),
        (InvertedResidual, BlockShape(16, 16, 1, 4, 0.25), silu, 1, ["depthwise"]),
        (DepthwiseSeparable, BlockShape(16, 24), relu, 1, ["convolution"]),
        (ActivatedDepthwiseSeparable, BlockShape(32, 24, 2), relu, 1, ["convolution"]),
        # windows of 5 x 5, channels that fill no whole vectors, and an activation that the kernels do not know
        (InvertedResidual, BlockShape(16, 16, 1, 4, window=5), relu6, 1, ["convolution"]),
        (InvertedResidual, BlockShape(10, 10, 1, 4), relu6, 1, []),
        (InvertedResidual, BlockShape(16, 16, 1, 4), jax.nn.hard_swish, 1, []),
    ],
)
def test_a_block_in_training(monkeypatch, kind, shape, activation, devices, passes):
    rules = LayerRules("symmetric", activation, 1e-3)
    block, x = kind(shape, rules, np.random.default_rng(0)), drawn((4, 10, 9, shape.inputs), 1)
    found, program = block_results(block, x, devices)
    assert [name for name in ("depthwise", "convolution") if f"cxr_jax_normalised_{name}" in program] == passes
    monkeypatch.setattr(
        BatchNorm, "then", lambda norm, following, x, mode, by: following.convolved(norm(x, mode, by), mode)
    )
    expected, plain = block_results(block, x, devices)
    assert "cxr_jax_normalised_" not in plain
    assert_same_bits(found, expected)


def test_what_cannot_be_normalised_while_it_is_loaded_is_an_error():
    # 23 channels fill the vectors of no processor
    for channels, window in ((23, 1), (16, 3)):
        x, kernel = drawn((1, 4, 4, channels), 1), drawn((window, window, channels, 8), 2).astype(jnp.float32)
        padding = ((window // 2, window // 2),) * 2
        assert not can_normalise(kernel, 1, padding)
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"normalised \w+ have to"):
            normalised_convolution(x, *parameters(channels), kernel, 1e-3, None, "relu6", 1, padding)[
                0
            ].block_until_ready()
