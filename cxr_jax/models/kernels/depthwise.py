"""The depthwise convolution, with the lowering that makes it fast on a CPU.

XLA's grouped convolution is slow on CPUs. There the convolution is written as k*k shifted multiply-adds, which XLA
fuses into one pass over the activations. A custom rule gives its gradients the same form. The input gradient is the
same sum of shifts with a turned kernel. The weight gradient is one reduction with k*k outputs. On every other platform
the grouped convolution stays, because there it is the right kernel; on NVIDIA's GPUs with a weight gradient of our own.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from cxr_jax.models.kernels.channel_sums import channel_sums
from cxr_jax.models.kernels.platform import chosen_by_platform

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros added (above, below), (left, right)."""


def depthwise_convolution(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Returns every channel of `x` [B, H, W, C] convolved with its own kernel; `kernel` is [k, k, 1, C].

    The result is [B, H', W', C] in the dtype of `x`. It is equal on every platform up to rounding.
    """
    return chosen_by_platform(
        x,
        kernel,
        cpu=functools.partial(shifted_depthwise, stride=stride, padding=padding),
        cuda=functools.partial(depthwise_on_gpu, stride=stride, padding=padding),
        default=functools.partial(grouped_depthwise, stride=stride, padding=padding),
    )


def grouped_depthwise(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Returns the depthwise convolution as XLA's grouped convolution; arguments as `depthwise_convolution`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def shifted_depthwise(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Returns the depthwise convolution as shifted multiply-adds; arguments as `depthwise_convolution`."""
    return _shifted(x, kernel, stride, padding)


def depthwise_on_gpu(x: Array, kernel: Array, *, stride: int, padding: Padding, interpreted: bool = False) -> Array:
    """Returns the grouped convolution with our weight gradient, interpreted if asked; the rest as
    `depthwise_convolution`.
    """
    return _on_gpu(x, kernel, stride, padding, interpreted)


def accumulator_of(x: Array) -> jnp.dtype:
    """Returns the dtype in which values of `x` are added up: its own, and float32 for bfloat16."""
    return jnp.dtype(jnp.float32) if x.dtype == jnp.bfloat16 else x.dtype


def _window(x: Array, row: int, column: int, stride: int, height: int, width: int) -> Array:
    """Returns the part of padded `x` [B, H, W, C] that kernel tap (row, column) meets: [B, height, width, C]."""
    batch, _, _, channels = x.shape
    return lax.slice(
        x,
        (0, row, column, 0),
        (batch, row + (height - 1) * stride + 1, column + (width - 1) * stride + 1, channels),
        (1, stride, stride, 1),
    )


def _pad(x: Array, padding: Padding, dilation: int = 1) -> Array:
    """Returns `x` [B, H, W, C] with zeros (negative: cropped) around it and `dilation` - 1 zeros between its pixels."""
    (top, bottom), (left, right) = padding
    none = (0, 0, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), (none, (top, bottom, dilation - 1), (left, right, dilation - 1), none))


def output_size(size: int, window: int, stride: int, padding: tuple[int, int]) -> int:
    """Returns how long an axis of `size` is after a window went along it, with `padding` zeros before and behind."""
    return (size + sum(padding) - window) // stride + 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    rows, columns = kernel.shape[:2]
    height = output_size(x.shape[1], rows, stride, padding[0])
    width = output_size(x.shape[2], columns, stride, padding[1])
    padded, dtype = _pad(x, padding), accumulator_of(x)
    total = None
    for row in range(rows):
        for column in range(columns):
            weight = kernel[row, column].reshape(1, 1, 1, -1).astype(dtype)
            term = _window(padded, row, column, stride, height, width).astype(dtype) * weight
            total = term if total is None else total + term
    return total.astype(x.dtype)


def _shifted_forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _shifted(x, kernel, stride, padding), (x, kernel)


def _shifted_backward(
    stride: int, padding: Padding, residuals: tuple[Array, Array], output_gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    output_gradient = lax.optimization_barrier(output_gradient)
    return (
        _input_gradient(output_gradient, kernel, x.shape[1:3], stride, padding),
        _weight_gradient(x, output_gradient, kernel.shape, stride, padding),
    )


def _input_gradient(
    output_gradient: Array, kernel: Array, input_size: tuple[int, int], stride: int, padding: Padding
) -> Array:
    """Returns the gradient of the input [B, H, W, C]: the strided gradient spread out and met by the kernel turned
    round.
    """
    back = []
    for axis in (0, 1):
        window, size = kernel.shape[axis], output_gradient.shape[axis + 1]
        before = window - 1 - padding[axis][0]
        spread = (size - 1) * stride + 1
        back.append((before, input_size[axis] - spread - before + window - 1))
    spread_gradient = _pad(output_gradient, (back[0], back[1]), dilation=stride)
    return _shifted(spread_gradient, kernel[::-1, ::-1], 1, ((0, 0), (0, 0)))


def _weight_gradient(
    x: Array, output_gradient: Array, kernel_shape: tuple[int, ...], stride: int, padding: Padding
) -> Array:
    """Returns the gradient of the kernel [k, k, 1, C].

    All taps are summed in one pass, which reads both operands once.
    """
    rows, columns, _, _ = kernel_shape
    _, height, width, _ = output_gradient.shape
    padded, dtype = _pad(x, padding), accumulator_of(x)
    output_gradient = output_gradient.astype(dtype)
    products = tuple(
        _window(padded, row, column, stride, height, width).astype(dtype) * output_gradient
        for row in range(rows)
        for column in range(columns)
    )
    taps = channel_sums(*products)
    return jnp.stack(taps).reshape(kernel_shape).astype(x.dtype)


_shifted.defvjp(_shifted_forward, _shifted_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _on_gpu(x: Array, kernel: Array, stride: int, padding: Padding, interpreted: bool) -> Array:
    return grouped_depthwise(x, kernel, stride=stride, padding=padding)


def _on_gpu_forward(
    x: Array, kernel: Array, stride: int, padding: Padding, interpreted: bool
) -> tuple[Array, tuple[Array, Array]]:
    return _on_gpu(x, kernel, stride, padding, interpreted), (x, kernel)


def _on_gpu_backward(
    stride: int, padding: Padding, interpreted: bool, residuals: tuple[Array, Array], output_gradient: Array
) -> tuple[Array, Array]:
    # imported where it is used: it takes a third of a second, which processes with CPUs alone need not wait for
    from cxr_jax.models.kernels import depthwise_weight_gradient as by_pallas

    x, kernel = residuals
    grouped = functools.partial(grouped_depthwise, stride=stride, padding=padding)
    if not (interpreted or by_pallas.is_possible()):
        return jax.vjp(grouped, x, kernel)[1](output_gradient)
    (input_gradient,) = jax.linear_transpose(lambda x: grouped(x, kernel), x)(output_gradient)
    given = {"window": kernel.shape[0], "stride": stride, "padding": padding, "interpreted": interpreted}
    gradient = by_pallas.weight_gradient(x, output_gradient, dtype=accumulator_of(x), **given)
    return input_gradient, gradient.astype(kernel.dtype)


_on_gpu.defvjp(_on_gpu_forward, _on_gpu_backward)
