"""The kernels as functions of arrays, with their gradients.

Activations `x` are [B, H, W, C] bfloat16, parameters and statistics float32; sums run in float32 at least. Only for
programs of one device: XLA does not know how to share such a call among several.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from cxr_jax.models.kernels.batch_norm import batch_means, factor_and_offset, moments
from cxr_jax.models.kernels.depthwise import Padding, output_size
from cxr_jax.models.kernels.native.calls import activation_number, bfloat16_of, call, float32_of, placing

DEPTHWISE_WINDOWS = (3, 5)
"""The sides of the windows that the depthwise kernels know."""

LANES = 16
"""What the channels of a depthwise convolution with windows of 3 x 3 are a multiple of for the kernels made for it."""


def convolution(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Returns the convolution of `x` by `kernel` [k, k, I, O]: [B, H', W', O] bfloat16.

    `kernel` is rounded to bfloat16, its gradient is not.
    """
    return _convolution("convolution", x, kernel, stride, padding)


def depthwise_convolution(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Returns the depthwise convolution of `x` by `kernel` [k, k, 1, C]: [B, H', W', C] bfloat16.

    k has to be one of `DEPTHWISE_WINDOWS`, the stride 1 or 2, and the padding above and to the left less than the
    window: else the call fails.
    """
    return _convolution(_depthwise_handler(kernel), x, kernel, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def _convolution(name: str, x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Returns the convolution of the handler `name`, whose gradients are the handlers `name`_input and
    `name`_kernel.
    """
    return convolve_by(name, x, kernel, jnp.zeros(kernel.shape[-1:], jnp.float32), stride, padding, "none")


def _convolution_forward(
    name: str, x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(name, x, kernel, stride, padding), (x, kernel)


def _convolution_backward(
    name: str, stride: int, padding: Padding, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    return convolution_gradients(name, *residuals, g, stride, padding)


_convolution.defvjp(_convolution_forward, _convolution_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: Array, factor: Array, offset: Array, activation: str) -> Array:
    """Returns `x` times `factor` [C] plus `offset` [C], activated."""
    return call("normalise", bfloat16_of(x.shape), x, factor, offset, **activation_number(activation))


def _affine_forward(x: Array, factor: Array, offset: Array, activation: str) -> tuple[Array, tuple[Array, ...]]:
    return affine(x, factor, offset, activation), (x, factor, offset)


def _affine_backward(activation: str, residuals: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    x, factor, offset = residuals
    nothing = jnp.zeros_like(factor)
    sums = _gradient_sums(x, g, factor, offset, nothing, activation)
    of_x = call(
        "normalise_gradient",
        bfloat16_of(x.shape),
        x,
        g,
        factor,
        offset,
        nothing,
        nothing,
        **activation_number(activation),
    )
    return of_x, sums[1], sums[0]


affine.defvjp(_affine_forward, _affine_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def normalise_by_batch(
    x: Array, scale: Array, bias: Array, shift: Array, epsilon: float, axis_name: str | None, activation: str
) -> tuple[Array, Array, Array]:
    """Returns as `cxr_jax.models.kernels.batch_norm.normalise_by_batch`, and activated."""
    mean, var = batch_statistics(x, shift, axis_name)
    return affine(x, *factor_and_offset(scale, bias, mean, var, epsilon), activation), mean, var


def batch_statistics(x: Array, shift: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Returns the mean and biased variance [C] of `x`, over all devices of the mapped axis."""
    sums = call("statistics", float32_of((2, x.shape[-1])), x, shift)
    return moments((sums[0], sums[1]), shift, x, axis_name)


def _normalise_forward(
    x: Array, scale: Array, bias: Array, shift: Array, epsilon: float, axis_name: str | None, activation: str
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    y, mean, var = normalise_by_batch(x, scale, bias, shift, epsilon, axis_name, activation)
    return (y, mean, var), (x, scale, bias, mean, var)


def _normalise_backward(
    epsilon: float,
    axis_name: str | None,
    activation: str,
    residuals: tuple[Array, ...],
    gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array, Array]:
    return batch_norm_gradients(*residuals, gradients[0], epsilon, axis_name, activation)


def batch_norm_gradients(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    var: Array,
    g: Array,
    epsilon: float,
    axis_name: str | None,
    activation: str,
) -> tuple[Array, Array, Array, Array]:
    """Returns the gradients of what `normalise_by_batch` takes, for the gradient `g` of its first result."""
    factor, offset = factor_and_offset(scale, bias, mean, var, epsilon)
    sums = _gradient_sums(x, g, factor, offset, mean, activation)
    inverse = lax.rsqrt(var + epsilon)
    of_mean, of_spread = batch_means((sums[0], sums[1]), x, axis_name)
    # what the mean and the variance of the batch give back, as a multiple of x and a constant of each channel
    slope = -factor * jnp.square(inverse) * of_spread
    constant = -factor * of_mean - slope * mean
    of_x = call(
        "normalise_gradient",
        bfloat16_of(x.shape),
        x,
        g,
        factor,
        offset,
        slope,
        constant,
        **activation_number(activation),
    )
    return of_x, sums[1] * inverse, sums[0], jnp.zeros_like(mean)


normalise_by_batch.defvjp(_normalise_forward, _normalise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def folded_convolution(
    x: Array, kernel: Array, factor: Array, offset: Array, stride: int, padding: Padding, activation: str
) -> Array:
    """Returns the convolution of `x` by `kernel`, times `factor` [O] plus `offset` [O], activated, in one pass.

    Depthwise where `kernel` is [k, k, 1, O] and `x` has O channels. Its gradients are those of the single steps.
    """
    return convolve_by(
        handler_of(x, kernel), x, kernel * factor.reshape(1, 1, 1, -1), offset, stride, padding, activation
    )


def _folded_forward(
    x: Array, kernel: Array, factor: Array, offset: Array, stride: int, padding: Padding, activation: str
) -> tuple[Array, Any]:
    def in_steps(x: Array, kernel: Array, factor: Array, offset: Array) -> Array:
        return affine(_convolution(handler_of(x, kernel), x, kernel, stride, padding), factor, offset, activation)

    return jax.vjp(in_steps, x, kernel, factor, offset)


def _folded_backward(stride: int, padding: Padding, activation: str, gradients_of: Any, g: Array) -> Any:
    del stride, padding, activation
    return gradients_of(g)


folded_convolution.defvjp(_folded_forward, _folded_backward)


def is_depthwise(x: Array, kernel: Array) -> bool:
    """Returns whether `kernel` has one plane for each of several channels of `x`."""
    return kernel.shape[2] == 1 and x.shape[-1] == kernel.shape[3] > 1


def handler_of(x: Array, kernel: Array) -> str:
    """Returns the handler that convolves `x` by `kernel`."""
    return _depthwise_handler(kernel) if is_depthwise(x, kernel) else "convolution"


def _depthwise_handler(kernel: Array) -> str:
    is_common = kernel.shape[:2] == (3, 3) and kernel.shape[-1] % LANES == 0
    return "depthwise" if is_common else "any_depthwise"


def _gradient_sums(x: Array, g: Array, factor: Array, offset: Array, mean: Array, activation: str) -> Array:
    """Sums [2, C] of the gradient before the activation, and of that times `x` - `mean`."""
    shape = float32_of((2, x.shape[-1]))
    return call("normalise_gradient_sums", shape, x, g, factor, offset, mean, **activation_number(activation))


def convolve_by(
    name: str, x: Array, kernel: Array, offset: Array, stride: int, padding: Padding, activation: str
) -> Array:
    """Returns the convolution of the handler `name` plus `offset` [O], activated; bfloat16 [B, H', W', O]."""
    window = placing(stride, padding)
    shape = output_of(x, kernel, stride, padding)
    return call(name, shape, x, operand(name, kernel), offset, **activation_number(activation), **window)


def output_of(x: Array, kernel: Array, stride: int, padding: Padding) -> jax.ShapeDtypeStruct:
    """Returns the shape of the convolution of `x` by `kernel`."""
    rows, columns = (output_size(x.shape[axis + 1], kernel.shape[axis], stride, padding[axis]) for axis in (0, 1))
    return bfloat16_of((x.shape[0], rows, columns, kernel.shape[-1]))


def convolution_gradients(
    name: str, x: Array, kernel: Array, g: Array, stride: int, padding: Padding
) -> tuple[Array, Array]:
    """Returns the gradients of `x` and of `kernel`, for the gradient `g` of their convolution by the handler `name`."""
    of_x = input_gradient(name, x, kernel, g, stride, padding)
    return of_x, call(f"{name}_kernel", float32_of(kernel.shape), x, g, **placing(stride, padding))


def input_gradient(name: str, x: Array, kernel: Array, g: Array, stride: int, padding: Padding) -> Array:
    """Returns the first of `convolution_gradients`."""
    return call(f"{name}_input", bfloat16_of(x.shape), g, operand(name, kernel), **placing(stride, padding))


def operand(name: str, kernel: Array) -> Array:
    """Returns `kernel` as the handler takes it: products are of bfloat16 values, the depthwise ones are not."""
    return kernel if name.endswith("depthwise") else kernel.astype(jnp.bfloat16)
