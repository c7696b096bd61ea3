"""Convolutions that normalise by the batch and activate what they load; activations are [B, H, W, C] bfloat16.

What is normalised is then neither written nor kept for the gradient, which saves half of a step's memory. The bits are
those of one step after another: values are rounded as if they had been stored.
"""

from __future__ import annotations

import functools

import jax
from jax import Array

from cxr_jax.models.kernels.batch_norm import factor_and_offset
from cxr_jax.models.kernels.depthwise import Padding
from cxr_jax.models.kernels.native.calls import activation_number, call, float32_of, placing
from cxr_jax.models.kernels.native.operations import (
    LANES,
    batch_norm_gradients,
    batch_statistics,
    handler_of,
    input_gradient,
    operand,
    output_of,
)


def can_normalise(kernel: Array, stride: int, padding: Padding) -> bool:
    """Returns whether a convolution by `kernel` [k, k, I, O] can normalise what it loads.

    It has to be pointwise, or depthwise with windows of 3 x 3, and its input's channels a multiple of `LANES`.
    """
    rows, columns, inputs, outputs = kernel.shape
    if (rows, columns, stride, padding) == (1, 1, 1, ((0, 0), (0, 0))):
        return inputs > 1 and inputs % LANES == 0
    return (rows, columns, inputs) == (3, 3, 1) and stride <= 2 and outputs % LANES == 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8, 9))
def normalised_convolution(
    x: Array,
    scale: Array,
    bias: Array,
    shift: Array,
    kernel: Array,
    epsilon: float,
    axis_name: str | None,
    activation: str,
    stride: int,
    padding: Padding,
) -> tuple[Array, Array, Array]:
    """Returns the convolution by `kernel` of what `normalise_by_batch` makes of `x`, and its mean and variance [C].

    Depthwise where `kernel` is [3, 3, 1, C]; `can_normalise` has to be true of it.
    """
    mean, var = batch_statistics(x, shift, axis_name)
    name, window = handler_of(x, kernel), placing(stride, padding)
    y = call(
        f"normalised_{name}",
        output_of(x, kernel, stride, padding),
        x,
        operand(name, kernel),
        *factor_and_offset(scale, bias, mean, var, epsilon),
        **activation_number(activation),
        **window,
    )
    return y, mean, var


def _forward(
    x: Array,
    scale: Array,
    bias: Array,
    shift: Array,
    kernel: Array,
    epsilon: float,
    axis_name: str | None,
    activation: str,
    stride: int,
    padding: Padding,
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    y, mean, var = normalised_convolution(
        x, scale, bias, shift, kernel, epsilon, axis_name, activation, stride, padding
    )
    return (y, mean, var), (x, scale, bias, mean, var, kernel)


def _backward(
    epsilon: float,
    axis_name: str | None,
    activation: str,
    stride: int,
    padding: Padding,
    residuals: tuple[Array, ...],
    gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array, Array, Array]:
    *normalised, kernel = residuals
    x, scale, bias, mean, var = normalised
    name, g = handler_of(x, kernel), gradients[0]
    of_kernel = call(
        f"normalised_{name}_kernel",
        float32_of(kernel.shape),
        x,
        g,
        *factor_and_offset(scale, bias, mean, var, epsilon),
        **activation_number(activation),
        **placing(stride, padding),
    )
    of_normalised = input_gradient(name, x, kernel, g, stride, padding)
    return (*batch_norm_gradients(*normalised, of_normalised, epsilon, axis_name, activation), of_kernel)


normalised_convolution.defvjp(_forward, _backward)
