"""The 1x1 convolution as a matrix product, with gradients that stay two plain products on a CPU.

XLA:CPU by itself fuses the gradient of BatchNorm, which comes before the weight gradient, into a transposed copy of the
largest array of the block. It then computes it again for the input gradient. A barrier lets it be computed once, as it
lies in memory. On every other platform the product and its own gradients stay.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from cxr_jax.models.kernels.depthwise import accumulator_of
from cxr_jax.models.kernels.platform import chosen_by_platform


def pointwise_convolution(x: Array, kernel: Array) -> Array:
    """Maps `x` [B, H, W, I] by `kernel` [I, O] to [B, H, W, O], in float32 where both are bfloat16."""
    return chosen_by_platform(x, kernel, cpu=two_products, default=_product)


@jax.custom_vjp
def two_products(x: Array, kernel: Array) -> Array:
    """Returns the product with our gradients; arguments as `pointwise_convolution`."""
    return _product(x, kernel)


def _product(x: Array, kernel: Array) -> Array:
    # the product of two bfloat16 matrices is slow on a CPU if its result has to be bfloat16 too
    return jnp.einsum("bhwi,io->bhwo", x, kernel, preferred_element_type=accumulator_of(x))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return two_products(x, kernel), (x, kernel)


def _backward(residuals: tuple[Array, Array], output_gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    output_gradient = lax.optimization_barrier(output_gradient)
    rows, columns = x.reshape(-1, x.shape[-1]), output_gradient.astype(x.dtype).reshape(-1, output_gradient.shape[-1])
    dtype = accumulator_of(x)
    kernel_gradient = lax.dot_general(rows, columns, (((0,), (0,)), ((), ())), preferred_element_type=dtype)
    input_gradient = lax.dot_general(columns, kernel, (((1,), (1,)), ((), ())), preferred_element_type=dtype)
    return input_gradient.reshape(x.shape).astype(x.dtype), kernel_gradient.astype(kernel.dtype)


two_products.defvjp(_forward, _backward)
