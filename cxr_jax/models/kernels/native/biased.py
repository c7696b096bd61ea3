"""Convolutions with a bias and an activation by the native kernels; activations are [B, H, W, C] bfloat16."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from cxr_jax.models.kernels.depthwise import Padding, output_size
from cxr_jax.models.kernels.native.calls import activation_number, bfloat16_of, call, float32_of, placing

ACTIVATIONS = ("none", "relu", "relu6")
"""The activations whose slope is known from their result."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def biased_convolution(x: Array, kernel: Array, bias: Array, stride: int, padding: Padding, activation: str) -> Array:
    """Returns the convolution of `x` by `kernel` [k, k, I, O] plus `bias` [O], activated by one of `ACTIVATIONS`.

    It is [B, H', W', O] bfloat16. `kernel` is rounded to bfloat16, its gradient is not.
    """
    rows, columns = (output_size(x.shape[axis + 1], kernel.shape[axis], stride, padding[axis]) for axis in (0, 1))
    shape = bfloat16_of((x.shape[0], rows, columns, kernel.shape[-1]))
    how = {**activation_number(activation), **placing(stride, padding)}
    return call("convolution", shape, x, kernel.astype(jnp.bfloat16), bias, **how)


def _forward(
    x: Array, kernel: Array, bias: Array, stride: int, padding: Padding, activation: str
) -> tuple[Array, tuple[Array, Array, Array]]:
    y = biased_convolution(x, kernel, bias, stride, padding, activation)
    return y, (x, kernel, y)


def _backward(
    stride: int, padding: Padding, activation: str, residuals: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array, Array]:
    x, kernel, y = residuals
    shapes = (bfloat16_of(g.shape), float32_of(kernel.shape[-1:]))
    before, of_bias = call("activated_input", shapes, y, g, **activation_number(activation))
    window = placing(stride, padding)
    of_x = call("convolution_input", bfloat16_of(x.shape), before, kernel.astype(jnp.bfloat16), **window)
    return of_x, call("convolution_kernel", float32_of(kernel.shape), x, before, **window), of_bias


biased_convolution.defvjp(_forward, _backward)
