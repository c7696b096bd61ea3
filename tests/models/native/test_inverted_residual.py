"""A whole inverted residual block of evaluation in one native call is the block as XLA computes it in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax.models.activations import relu6
from cxr_jax.models.blocks import BlockShape, InvertedResidual
from cxr_jax.models.layers import BatchNorm, LayerRules, Mode

from .test_operations import assert_close, exact, values

pytestmark = pytest.mark.usefixtures("native_kernels")

RULES = LayerRules("symmetric", relu6, epsilon=1e-3)
NATIVE = Mode(native=True)
CALL = "cxr_jax_inverted_residual"


def block_of(shape, rules=RULES):
    """A block whose BatchNorms have statistics and parameters of their own."""
    generator = np.random.default_rng(0)
    block = InvertedResidual(shape, rules, generator)
    for _, layer in nnx.iter_modules(block):
        if isinstance(layer, BatchNorm):
            for array, low, high in (
                (layer.scale, 0.5, 2),
                (layer.bias, -1, 1),
                (layer.mean, -1, 1),
                (layer.var, 0.5, 2),
            ):
                array.set_value(jnp.asarray(generator.uniform(low, high, array.shape), jnp.float32))
    return block


def program_of(block, x, mode):
    graphdef, state = nnx.split(block)
    return jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, mode)).lower(state, x).as_text()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (BlockShape(16, 16, expansion=6), (7, 7)),  # the input is added
        (BlockShape(24, 40, expansion=6), (9, 8)),
        (BlockShape(16, 24, stride=2, expansion=6), (17, 12)),
        (BlockShape(24, 24, expansion=6, window=5), (11, 13)),
        (BlockShape(160, 160, expansion=6), (7, 7)),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_values(shape, size, batch):
    block, x = block_of(shape), values((batch, *size, shape.inputs), 1)
    assert CALL in program_of(block, x, NATIVE)
    y = jax.jit(lambda x: block(x, NATIVE))(x)
    assert y.dtype == jnp.bfloat16
    assert_close(y, block(exact(x), Mode()), 3 * 2.0**-8)


def test_gradients_are_those_of_the_single_steps(monkeypatch):
    rules = LayerRules("symmetric", jax.nn.relu, epsilon=1e-3)
    block, x = block_of(BlockShape(16, 16, expansion=3), rules), values((2, 6, 5, 16), 1)
    graphdef, state = nnx.split(block)

    def gradients(state, x, mode):
        return jax.vjp(lambda state, x: nnx.merge(graphdef, state)(x, mode).astype(jnp.float32), state, x)[1](
            jnp.ones(x.shape, jnp.float32)
        )

    found = gradients(state, x, NATIVE)
    monkeypatch.setattr("cxr_jax.models.blocks.is_known", lambda *_: False)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(gradients(state, x, NATIVE)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        (BlockShape(16, 16, expansion=6), Mode()),
        (BlockShape(16, 16, expansion=6), Mode(batch_statistics=True, native=True)),
        (BlockShape(16, 16, expansion=6), Mode(keys=jax.random.split(jax.random.key(0), 2), native=True)),
        (BlockShape(16, 16, expansion=6, squeeze=0.25), NATIVE),  # channels are weighed by the whole image
        (BlockShape(8, 8, expansion=1), NATIVE),  # channels that fill no whole vectors
    ],
)
def test_what_the_call_cannot_do_goes_step_by_step(shape, mode):
    assert CALL not in program_of(block_of(shape), values((2, 6, 6, shape.inputs), 1), mode)


def test_an_activation_of_another_kind_goes_step_by_step():
    block = block_of(BlockShape(16, 16, expansion=6), LayerRules("symmetric", jnp.tanh, epsilon=1e-3))
    assert CALL not in program_of(block, values((1, 6, 6, 16), 1), NATIVE)
