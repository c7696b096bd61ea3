"""Pooling by the native kernels, with its gradients; activations are [B, H, W, C] bfloat16."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from cxr_jax.models.kernels.depthwise import Padding, output_size
from cxr_jax.models.kernels.native.calls import bfloat16_of, call, placing


class _Pooling(NamedTuple):
    """How windows go over images of one shape; their means count the zeros around an image, or do not."""

    shape: tuple[int, ...]  # of the input
    window: int
    stride: int
    padding: Padding
    counts_padding: bool | None = None  # None where no mean is asked for

    def result(self) -> jax.ShapeDtypeStruct:
        batch, *size, channels = self.shape
        rows, columns = (
            output_size(length, self.window, self.stride, pads) for length, pads in zip(size, self.padding, strict=True)
        )
        return bfloat16_of((batch, rows, columns, channels))

    def attributes(self) -> dict[str, np.int64]:
        means = {} if self.counts_padding is None else {"counts_padding": np.int64(self.counts_padding)}
        return {**means, "window": np.int64(self.window), **placing(self.stride, self.padding)}


def max_pool(x: Array, window: int, stride: int, padding: Padding) -> Array:
    """Returns the largest value of every window of `x`, as `cxr_jax.models.kernels.pooling.max_pool`.

    Its gradient goes to the first of equal values.
    """
    return _largest(x, _Pooling(x.shape, window, stride, padding))


def average_pool(x: Array, window: int, stride: int, padding: Padding, *, counts_padding: bool) -> Array:
    """Returns the mean of every window of `x`, as `cxr_jax.models.kernels.pooling.average_pool`."""
    return _mean(x, _Pooling(x.shape, window, stride, padding, counts_padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _largest(x: Array, pooling: _Pooling) -> Array:
    return call("max_pool", pooling.result(), x, **pooling.attributes())


def _largest_forward(x: Array, pooling: _Pooling) -> tuple[Array, Array]:
    # the places are numbers of taps, as bfloat16
    y, places = call("max_pool_places", (pooling.result(), pooling.result()), x, **pooling.attributes())
    return y, places


def _largest_backward(pooling: _Pooling, places: Array, g: Array) -> tuple[Array]:
    return (call("max_pool_input", bfloat16_of(pooling.shape), g, places, **pooling.attributes()),)


_largest.defvjp(_largest_forward, _largest_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _mean(x: Array, pooling: _Pooling) -> Array:
    return call("average_pool", pooling.result(), x, **pooling.attributes())


def _mean_forward(x: Array, pooling: _Pooling) -> tuple[Array, None]:
    return _mean(x, pooling), None


def _mean_backward(pooling: _Pooling, residuals: None, g: Array) -> tuple[Array]:
    del residuals
    return (call("average_pool_input", bfloat16_of(pooling.shape), g, **pooling.attributes()),)


_mean.defvjp(_mean_forward, _mean_backward)
