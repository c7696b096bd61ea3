"""A whole inverted residual block of evaluation in one call; activations are [B, H, W, C] bfloat16."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from cxr_jax.models.kernels.depthwise import Padding
from cxr_jax.models.kernels.native.calls import activation_number, bfloat16_of, call, placing
from cxr_jax.models.kernels.native.operations import DEPTHWISE_WINDOWS, LANES, folded_convolution, output_of

NO_PADDING: Padding = ((0, 0), (0, 0))


class Folded(NamedTuple):
    """A convolution by `kernel` [k, k, I, O], times `factor` [O] plus `offset` [O]."""

    kernel: Array
    factor: Array
    offset: Array


def is_known(channels: int, window: int, stride: int) -> bool:
    """Returns whether a block whose depthwise convolution is of that kind can be computed in one call."""
    return channels % LANES == 0 and window in DEPTHWISE_WINDOWS and stride <= 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def inverted_residual(
    x: Array,
    widening: Folded,
    depthwise: Folded,
    projecting: Folded,
    stride: int,
    padding: Padding,
    activation: str,
    adds_input: bool,
) -> Array:
    """Returns `x` widened and activated, filtered and activated, and projected; and `x` added where `adds_input`.

    `is_known` has to be true of the depthwise convolution, which `stride` and `padding` are of. What lies between the
    convolutions is rounded only where the processor multiplies bfloat16 values. The gradients are those of the single
    steps.
    """
    pixels = output_of(x, depthwise.kernel, stride, padding).shape[:3]
    return call(
        "inverted_residual",
        bfloat16_of((*pixels, projecting.kernel.shape[-1])),
        x,
        *widening,
        *depthwise,
        *projecting,
        **activation_number(activation),
        **placing(stride, padding),
        adds_input=np.int64(adds_input),
    )


def _forward(
    x: Array,
    widening: Folded,
    depthwise: Folded,
    projecting: Folded,
    stride: int,
    padding: Padding,
    activation: str,
    adds_input: bool,
) -> tuple[Array, Any]:
    def in_steps(x: Array, widening: Folded, depthwise: Folded, projecting: Folded) -> Array:
        y = folded_convolution(x, *widening, 1, NO_PADDING, activation)
        y = folded_convolution(y, *depthwise, stride, padding, activation)
        y = folded_convolution(y, *projecting, 1, NO_PADDING, "none")
        return x + y if adds_input else y

    return jax.vjp(in_steps, x, widening, depthwise, projecting)


def _backward(stride: int, padding: Padding, activation: str, adds_input: bool, gradients_of: Any, g: Array) -> Any:
    del stride, padding, activation, adds_input
    return gradients_of(g)


inverted_residual.defvjp(_forward, _backward)
