"""The dense convolution, with the weight gradient that makes it fast on a CPU.

XLA's convolution and its input gradient are good on CPUs; its weight gradient is not, least of all for large batches.
There it is computed as matrix products of the output's gradient with the windows that its rows met. On every other
platform XLA's convolution and its own gradients stay.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from cxr_jax.models.kernels.depthwise import Padding, accumulator_of
from cxr_jax.models.kernels.platform import chosen_by_platform

FEW_CHANNELS = 8
"""Up to so many input channels, as in a stem, XLA's weight gradient is as good as ours."""


def dense_convolution(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Returns `x` [B, H, W, I] convolved by `kernel` [k, k, I, O].

    The result is [B, H', W', O] in the dtype of `x`. It is equal on every platform up to rounding.
    """
    plain = functools.partial(plain_convolution, stride=stride, padding=padding)
    if kernel.shape[2] <= FEW_CHANNELS:
        return plain(x, kernel)
    by_rows = functools.partial(convolution_by_rows, stride=stride, padding=padding)
    return chosen_by_platform(x, kernel, cpu=by_rows, default=plain)


def plain_convolution(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Returns the convolution as XLA's own; arguments as `dense_convolution`."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolution_by_rows(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Returns the convolution with our weight gradient; arguments as `dense_convolution`."""
    return _by_rows(x, kernel, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_rows(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return plain_convolution(x, kernel, stride=stride, padding=padding)


def _forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _by_rows(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, residuals: tuple[Array, Array], output_gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    of_input = jax.linear_transpose(lambda x: plain_convolution(x, kernel, stride=stride, padding=padding), x)
    (input_gradient,) = of_input(output_gradient)
    return input_gradient, _weight_gradient(x, output_gradient, kernel.shape, stride, padding)


def _weight_gradient(
    x: Array, output_gradient: Array, kernel_shape: tuple[int, ...], stride: int, padding: Padding
) -> Array:
    """Returns the gradient of the kernel [k, k, I, O], summed over the rows of the output.

    The windows of one row of the output are laid out as a matrix, which stays in the processor's cache. The windows of
    all rows at once would be k*k times as large as the input, and memory would limit the speed. The loop runs over rows
    and not over examples, so that a batch that is spread over devices stays where it is.
    """
    rows, columns, inputs, outputs = kernel_shape
    batch, height, width, _ = output_gradient.shape
    padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pads, 0) for pads in padding), (0, 0, 0)))

    def add_row(row: Array, total: Array) -> Array:
        met = lax.dynamic_slice_in_dim(padded, row * stride, rows, 1)  # [B, rows, W + pads, I]
        taps = [
            lax.slice(
                met, (0, up, left, 0), (batch, up + 1, left + (width - 1) * stride + 1, inputs), (1, 1, stride, 1)
            )
            for up in range(rows)
            for left in range(columns)
        ]
        windows = jnp.concatenate(taps, -1)  # [B, 1, W', rows*columns*I]
        gradient = lax.dynamic_slice_in_dim(output_gradient, row, 1, 1)  # [B, 1, W', O]
        return total + jnp.einsum("bhwi,bhwo->io", windows, gradient, preferred_element_type=total.dtype)

    zero = jnp.zeros((rows * columns * inputs, outputs), accumulator_of(x))
    return lax.fori_loop(0, height, add_row, zero).reshape(kernel_shape).astype(x.dtype)


_by_rows.defvjp(_forward, _backward)
