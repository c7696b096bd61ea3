"""The 1x1 convolution as a matrix product, with gradients that stay two plain products.

XLA:CPU by itself fuses the gradient of BatchNorm, which comes before the weight gradient, into a transposed copy of the
largest array of the block. It then computes it again for the input gradient. A barrier lets it be computed once, as it
lies in memory. A product of two bfloat16 matrices is slow on a CPU if its result has to be bfloat16 too.

Every other platform needs neither. There the operands of all products have one dtype, that of the input: the units for
matrices take bfloat16, and add up in float32 by themselves.
"""

from __future__ import annotations

import functools

import jax
from jax import Array, lax

from cxr_jax.models.kernels.depthwise import accumulator_of
from cxr_jax.models.kernels.platform import chosen_by_platform


def pointwise_convolution(x: Array, kernel: Array) -> Array:
    """Maps `x` [B, H, W, I] by `kernel` [I, O] to [B, H, W, O], of the same dtype."""
    cpu = functools.partial(two_products, on_cpu=True)
    return chosen_by_platform(x, kernel, cpu=cpu, default=functools.partial(two_products, on_cpu=False))


def two_products(x: Array, kernel: Array, *, on_cpu: bool) -> Array:
    """Returns the product with our gradients, as it suits a CPU or another device; the rest as
    `pointwise_convolution`.
    """
    return _with_gradients(x, kernel, on_cpu)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _with_gradients(x: Array, kernel: Array, on_cpu: bool) -> Array:
    return _product(x, kernel, 3, 0, accumulator_of(x) if on_cpu else x.dtype).astype(x.dtype)


def _product(left: Array, right: Array, axis: int, other: int, dtype: jax.typing.DTypeLike) -> Array:
    return lax.dot_general(left, right, (((axis,), (other,)), ((), ())), preferred_element_type=dtype)


def _forward(x: Array, kernel: Array, on_cpu: bool) -> tuple[Array, tuple[Array, Array]]:
    return _with_gradients(x, kernel, on_cpu), (x, kernel)


def _backward(on_cpu: bool, residuals: tuple[Array, Array], output_gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    if on_cpu:
        output_gradient = lax.optimization_barrier(output_gradient)
    rows, columns = x.reshape(-1, x.shape[-1]), output_gradient.astype(x.dtype).reshape(-1, output_gradient.shape[-1])
    dtype = accumulator_of(x)
    kernel_gradient = _product(rows, columns, 0, 0, dtype)
    input_gradient = _product(columns, kernel, 1, 1, dtype if on_cpu else x.dtype)
    return input_gradient.reshape(x.shape).astype(x.dtype), kernel_gradient.astype(kernel.dtype)


_with_gradients.defvjp(_forward, _backward)
