"""Batch normalisation by the batch's own statistics, in as few passes over the activations as it takes.

One pass computes the two sums of the statistics. The gradient follows Ioffe and Szegedy (2015): one pass for its two
sums, and one for the result. XLA fuses the last pass with the operation that uses it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from cxr_jax.models.kernels.channel_sums import channel_sums


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalise_by_batch(
    x: Array, scale: Array, bias: Array, shift: Array, epsilon: float, axis_name: str | None
) -> tuple[Array, Array, Array]:
    """Returns `x` [B, H, W, C] normalised by its own mean and biased variance, times `scale` [C] plus `bias` [C].

    Returns it in its own dtype, and beside it that mean and variance [C], through which no gradient flows. Under a
    mapped axis `axis_name` the statistics are those of all devices. `shift` [C] is a guess at the mean. It keeps digits
    that E[x^2] - E[x]^2 would lose if the mean is much larger than the spread. The exact result does not depend on it.
    """
    centred = x.astype(shift.dtype) - _spread(shift)
    mean, var = moments(channel_sums(centred, jnp.square(centred)), shift, x, axis_name)
    return affine(x, *factor_and_offset(scale, bias, mean, var, epsilon)), mean, var


def affine(x: Array, factor: Array, offset: Array) -> Array:
    """Returns `x` [B, H, W, C] times `factor` [C] plus `offset` [C], rounded once to the dtype of `x`."""
    # one multiply and one add per activation; XLA fuses them with what follows
    return (x.astype(factor.dtype) * _spread(factor) + _spread(offset)).astype(x.dtype)


def factor_and_offset(scale: Array, bias: Array, mean: Array, var: Array, epsilon: float) -> tuple[Array, Array]:
    """Returns the factor and offset [C] that normalise by `mean` and `var`, and then apply `scale` and `bias`."""
    factor = scale * lax.rsqrt(var + epsilon)
    return factor, bias - mean * factor


def moments(sums: tuple[Array, Array], shift: Array, x: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Returns the mean and biased variance [C] of the batch, from the sums [C] of `x` - `shift` and of its square
    on one device.
    """
    first, second = batch_means(sums, x, axis_name)
    return first + shift, jnp.maximum(second - jnp.square(first), jnp.zeros((), second.dtype))


def batch_means(sums: tuple[Array, Array], x: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Returns `sums` [C] over the values of `x` as means over the whole batch, on all devices of the mapped axis."""
    first, second = sums if axis_name is None else lax.psum(sums, axis_name)
    count = values_per_channel(x, axis_name)
    return first / count, second / count


def _forward(
    x: Array, scale: Array, bias: Array, shift: Array, epsilon: float, axis_name: str | None
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    y, mean, var = normalise_by_batch(x, scale, bias, shift, epsilon, axis_name)
    return (y, mean, var), (x, scale, mean, var)


def _backward(
    epsilon: float, axis_name: str | None, residuals: tuple[Array, ...], gradients: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array, Array]:
    x, scale, mean, var = residuals
    gradient = gradients[0].astype(mean.dtype)
    centred = x.astype(mean.dtype) - _spread(mean)
    sums = channel_sums(gradient, gradient * centred)
    inverse = lax.rsqrt(var + epsilon)
    # parameters are each device's own, and their gradients are brought together with all others
    of_bias, of_scale = sums[0], sums[1] * inverse
    constant, slope = batch_means(sums, x, axis_name)
    of_x = _spread(scale * inverse) * (gradient - _spread(constant) - centred * _spread(slope * jnp.square(inverse)))
    return of_x.astype(x.dtype), of_scale, of_bias, jnp.zeros_like(mean)


normalise_by_batch.defvjp(_forward, _backward)


def values_per_channel(x: Array, axis_name: str | None) -> int:
    """Returns how many values of a channel the batch has, on all devices."""
    count = x.shape[0] * x.shape[1] * x.shape[2]
    return count if axis_name is None else count * lax.axis_size(axis_name)


def _spread(values: Array) -> Array:
    return values.reshape(1, 1, 1, -1)
