"""Calls of the native kernels are counted from the compiled program, whatever else is in it."""

import jax
import jax.numpy as jnp
import pytest

from cxr_jax.bench.cases import Case
from cxr_jax.bench.steps import prepare
from cxr_jax.models.kernels.native import operations as kernels
from cxr_jax.models.kernels.native.costs import native_costs
from cxr_jax.models.kernels.native.inverted_residual import Folded, inverted_residual


def costs_of(function, *arguments):
    return native_costs(jax.jit(function).lower(*arguments).compile().as_text())


def test_a_program_without_them_has_none():
    assert costs_of(lambda x: x @ x, jnp.ones((4, 4))) == (0.0, 0.0)


@pytest.mark.usefixtures("native_kernels")
def test_operations_are_those_of_the_windows_and_bytes_those_of_the_arrays():
    x, kernel = jnp.ones((2, 8, 8, 16), jnp.bfloat16), jnp.ones((3, 3, 16, 24), jnp.float32)
    padding = ((1, 1), (1, 1))
    flops, copied = costs_of(lambda x, kernel: kernels.convolution(x, kernel, 2, padding), x, kernel)
    assert flops == 2 * (2 * 4 * 4 * 24) * 9 * 16
    # the kernel is rounded to bfloat16 before the call, and an offset goes in
    assert copied == 2 * x.size + 2 * kernel.size + 4 * 24 + 2 * (2 * 4 * 4 * 24)
    flops, _ = costs_of(
        lambda x, kernel: kernels.depthwise_convolution(x, kernel, 1, padding), x, kernel[:, :, :1, :16]
    )
    assert flops == 2 * x.size * 9


@pytest.mark.usefixtures("native_kernels")
def test_a_whole_block_costs_as_much_as_its_convolutions():
    x, ones = jnp.ones((2, 8, 6, 16), jnp.bfloat16), jnp.ones
    folded = [
        Folded(ones(shape), ones(shape[-1]), ones(shape[-1]))
        for shape in ((1, 1, 16, 32), (3, 3, 1, 32), (1, 1, 32, 24))
    ]
    flops, copied = costs_of(lambda *given: inverted_residual(*given, 2, ((1, 1), (1, 1)), "relu6", False), x, *folded)
    assert flops == 2 * (2 * 48 * 16 * 32 + 2 * 12 * 9 * 32 + 2 * 12 * 32 * 24)
    assert copied == 2 * x.size + 4 * sum(array.size for array in jax.tree.leaves(folded)) + 2 * (2 * 12 * 24)


@pytest.mark.usefixtures("native_kernels")
def test_both_gradients_cost_as_much_as_the_convolution():
    x, kernel = jnp.ones((2, 8, 8, 16), jnp.bfloat16), jnp.ones((1, 1, 16, 24), jnp.float32)

    def gradients(x, kernel, g):
        return jax.vjp(lambda x, kernel: kernels.convolution(x, kernel, 1, ((0, 0), (0, 0))), x, kernel)[1](g)

    flops, _ = costs_of(gradients, x, kernel, jnp.ones((2, 8, 8, 24), jnp.bfloat16))
    assert flops == 2 * 2 * (2 * 8 * 8) * 16 * 24


@pytest.mark.usefixtures("native_kernels")
def test_a_step_in_bfloat16_is_counted_about_as_in_float32():
    counts = {}
    for precision in ("float32", "bfloat16"):
        case = Case("mobilenetv2_tiny", 32, 4, "train", threads=1, devices=1, precision=precision)
        facts = prepare(case).facts
        assert facts["native_kernels"] == (precision == "bfloat16")
        counts[precision] = facts["flops"]
    assert 0.5 < counts["bfloat16"] / counts["float32"] < 1.5
