"""Convolutions with a bias and an activation by the native kernels; activations are [B, H, W, C] bfloat16."""

from __future__ import annotations

import functools

import jax
from jax import Array

from cxr_jax.models.kernels.depthwise import Padding
from cxr_jax.models.kernels.native.calls import activation_number, bfloat16_of, call, float32_of
from cxr_jax.models.kernels.native.operations import convolution_gradients, convolve_by

ACTIVATIONS = ("none", "relu", "relu6")
"""The activations whose slope is known from their result."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def biased_convolution(x: Array, kernel: Array, bias: Array, stride: int, padding: Padding, activation: str) -> Array:
    """Returns the convolution of `x` by `kernel` [k, k, I, O] plus `bias` [O], activated by one of `ACTIVATIONS`.

    It is [B, H', W', O] bfloat16. `kernel` is rounded to bfloat16, its gradient is not.
    """
    return convolve_by("convolution", x, kernel, bias, stride, padding, activation)


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
    return (*convolution_gradients("convolution", x, kernel, before, stride, padding), of_bias)


biased_convolution.defvjp(_forward, _backward)
