"""The layers that the networks are built of; padding, epsilon and rates are always given, never defaults.

Activations keep the dtype that they come in with, float32 or bfloat16. Parameters and statistics keep their own dtype:
float32, or float64 in some tests. A kernel is cast to the dtype of its input where it is used, so its gradient is
float32 again. Sums over many values run in float32 at least.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from cxr_jax.models.activations import Activation, identity, native_activation
from cxr_jax.models.kernels import pooling
from cxr_jax.models.kernels.batch_norm import affine, factor_and_offset, normalise_by_batch, values_per_channel
from cxr_jax.models.kernels.dense import dense_convolution, plain_convolution
from cxr_jax.models.kernels.depthwise import Padding, accumulator_of, depthwise_convolution, grouped_depthwise
from cxr_jax.models.kernels.native import operations as kernels
from cxr_jax.models.kernels.native import pooling as native_pooling
from cxr_jax.models.kernels.native.biased import ACTIVATIONS as BY_RESULT
from cxr_jax.models.kernels.native.biased import biased_convolution
from cxr_jax.models.kernels.native.concatenation import concatenate as native_concatenate
from cxr_jax.models.kernels.native.normalised import can_normalise, normalised_convolution
from cxr_jax.models.kernels.pointwise import pointwise_convolution

PaddingRule = Literal["symmetric", "same", "valid", "ceil"]
"""`symmetric` is torch's k // 2 on every side; `same` TensorFlow's, uneven where the stride leaves a remainder; `valid`
none; `ceil` as much behind as the last window reaches over the edge, as torch's pooling adds in its ceil mode."""

Lowering = Literal["fast", "plain"]
"""`plain` is what `nnx.Conv` does: XLA's convolutions throughout; kept to measure and to test against."""


@dataclass(frozen=True)
class LayerRules:
    """What all layers of one network have in common."""

    padding: PaddingRule
    activation: Activation
    epsilon: float  # added to the variance in BatchNorm
    momentum: float = 0.9  # share of the running statistics that a step keeps: torch's 0.1
    lowering: Lowering = "fast"


class Mode(NamedTuple):
    """How a network is run: with the batch's statistics or the running ones, with dropout or without."""

    batch_statistics: bool = False  # BatchNorm normalises by the batch and moves its running statistics
    keys: Array | None = None  # [B] typed keys of dropout and stochastic depth; None: both are off
    axis_name: str | None = None  # the mapped axis that shares a batch among devices
    native: bool = False  # bfloat16 activations go through the kernels in C++: in programs of one CPU device alone

    def frozen(self) -> Mode:
        """Returns the same for a stage that runs as in evaluation."""
        return self._replace(batch_statistics=False, keys=None)

    def keys_of(self, layer: int) -> Array:
        """Returns the keys [B] of one random layer, independent of those of every other."""
        return jax.vmap(lambda key: jax.random.fold_in(key, layer))(self.keys)


def padding_of(rule: PaddingRule, size: tuple[int, int], window: int | tuple[int, int], stride: int) -> Padding:
    """Returns the zeros that `rule` adds around an image of `size` (H, W) for a window, square or (rows, columns)."""
    window = (window, window) if isinstance(window, int) else window
    rows, columns = (_pads(rule, length, side, stride) for length, side in zip(size, window, strict=True))
    return rows, columns


def _pads(rule: PaddingRule, length: int, window: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and behind an axis of `length`."""
    if rule == "symmetric":
        return window // 2, window // 2
    if rule == "valid":
        return 0, 0
    if rule == "ceil":
        return 0, max(-(-(length - window) // stride) * stride + window - length, 0)
    total = max((-(-length // stride) - 1) * stride + window - length, 0)
    return total // 2, total - total // 2


def max_pool(x: Array, rule: PaddingRule, mode: Mode, window: int = 3, stride: int = 2) -> Array:
    """Returns the largest value of every window of `x` [B, H, W, C]: [B, H', W', C]."""
    pool = native_pooling.max_pool if is_native(x, mode) else pooling.max_pool
    return pool(x, window, stride, padding_of(rule, x.shape[1:3], window, stride))


def average_pool(
    x: Array, rule: PaddingRule, mode: Mode, window: int = 3, stride: int = 1, *, counts_padding: bool = True
) -> Array:
    """Returns the mean of every window of `x` [B, H, W, C]: [B, H', W', C]; zeros around `x` count where asked."""
    pool = native_pooling.average_pool if is_native(x, mode) else pooling.average_pool
    padding = padding_of(rule, x.shape[1:3], window, stride)
    return pool(x, window, stride, padding, counts_padding=counts_padding)


def concatenate(parts: Sequence[Array], mode: Mode) -> Array:
    """Returns `parts`, each [B, H, W, C], as one array of all their channels."""
    by_kernels = all(is_native(part, mode) for part in parts)
    return native_concatenate(list(parts)) if by_kernels else jnp.concatenate(parts, -1)


def is_native(x: Array, mode: Mode) -> bool:
    """Returns whether the native kernels are to take `x`."""
    return mode.native and x.dtype == jnp.bfloat16


def he_normal(generator: np.random.Generator, shape: tuple[int, ...], fan_out: int) -> Array:
    """Returns normal values [shape] float32 with variance 2 / fan_out, as timm initialises convolutions."""
    return initial(generator.standard_normal(shape, np.float32) * np.float32((2.0 / fan_out) ** 0.5))


def initial(values: np.ndarray) -> Array:
    """Returns `values` as an array of jax.

    What layers begin with is made by numpy: jax would compile a program for every shape, which takes seconds before the
    first step.
    """
    return jax.device_put(np.asarray(values, np.float32))


class Filter(nnx.Module):
    """What all convolutions share: a `kernel` [k, k, I, O], a stride, padding and a lowering.

    Called with `x` [B, H, W, I] it gives [B, H', W', O]; so does `native`, in the same dtype.
    """

    kernel: nnx.Param
    bias: nnx.Param | None
    stride: int
    padding: PaddingRule
    lowering: Lowering

    def padding_for(self, x: Array) -> Padding:
        """Returns the zeros to put around `x` [B, H, W, I]."""
        return padding_of(self.padding, x.shape[1:3], self.kernel.shape[:2], self.stride)

    def __call__(self, x: Array) -> Array:
        """Convolves `x` [B, H, W, I] into [B, H', W', O] by XLA."""
        raise NotImplementedError

    def native(self, x: Array) -> Array:
        """Returns the same by the native kernels."""
        if self.bias is not None:
            return self._biased(x, "none")
        return kernels.convolution(x, self.kernel[...], self.stride, self.padding_for(x))

    def is_native(self, x: Array, mode: Mode) -> bool:
        """Returns whether the native kernels are to take `x`, and can."""
        return is_native(x, mode)

    def convolved(self, x: Array, mode: Mode) -> Array:
        """Returns the same as a call, by the native kernels where they are to take `x`, and can."""
        return self.native(x) if self.is_native(x, mode) else self(x)

    def activated(self, x: Array, mode: Mode, activation: Activation) -> Array:
        """Returns the same with a bias, activated."""
        name, rest = native_activation(activation)
        if self.is_native(x, mode) and name in BY_RESULT:
            return rest(self._biased(x, name))
        return activation(self.convolved(x, mode))

    def _biased(self, x: Array, activation: str) -> Array:
        window = self.stride, self.padding_for(x)
        return biased_convolution(x, self.kernel[...], self.bias[...], *window, activation)


class Convolution(Filter):
    """A dense convolution; `kernel` is [rows, columns, I, O], `bias` [O] where asked for."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: int | tuple[int, int],
        stride: int,
        rules: LayerRules,
        generator: np.random.Generator,
        *,
        bias: bool = False,
    ) -> None:
        rows, columns = (window, window) if isinstance(window, int) else window
        self.kernel = nnx.Param(he_normal(generator, (rows, columns, inputs, outputs), rows * columns * outputs))
        self.bias = nnx.Param(initial(np.zeros(outputs))) if bias else None
        self.stride, self.padding, self.lowering = stride, rules.padding, rules.lowering

    def __call__(self, x: Array) -> Array:
        """Convolves `x` [B, H, W, I] into [B, H', W', O]."""
        kernel = self.kernel[...].astype(x.dtype)
        convolution = dense_convolution if self.lowering == "fast" else plain_convolution
        return _with_bias(convolution(x, kernel, stride=self.stride, padding=self.padding_for(x)), self.bias, x)


def _with_bias(y: Array, bias: nnx.Param | None, x: Array) -> Array:
    """Returns `y` [B, H, W, O] and `bias` [O] added up, rounded once to the dtype of `x`."""
    if bias is not None:
        y = y.astype(accumulator_of(x)) + bias[...].reshape(1, 1, 1, -1).astype(accumulator_of(x))
    return y.astype(x.dtype)


class PointwiseConvolution(Filter):
    """A 1x1 convolution as one matrix product; `kernel` is [1, 1, I, O], `bias` [O] where asked for."""

    def __init__(
        self, inputs: int, outputs: int, rules: LayerRules, generator: np.random.Generator, *, bias: bool = False
    ) -> None:
        self.kernel = nnx.Param(he_normal(generator, (1, 1, inputs, outputs), outputs))
        self.bias = nnx.Param(initial(np.zeros(outputs))) if bias else None
        self.stride, self.padding, self.lowering = 1, rules.padding, rules.lowering

    def __call__(self, x: Array) -> Array:
        """Maps `x` [B, H, W, I] to [B, H, W, O]."""
        kernel = self.kernel[...].astype(x.dtype)
        if self.lowering == "plain":
            y = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        else:
            y = pointwise_convolution(x, kernel[0, 0])
        return _with_bias(y, self.bias, x)


class DepthwiseConvolution(Filter):
    """One kernel per channel, without bias; `kernel` is [k, k, 1, C]."""

    def __init__(
        self, channels: int, window: int, stride: int, rules: LayerRules, generator: np.random.Generator
    ) -> None:
        # timm divides the fan-out by the number of groups
        self.kernel = nnx.Param(he_normal(generator, (window, window, 1, channels), window * window))
        self.bias = None
        self.stride, self.padding, self.lowering = stride, rules.padding, rules.lowering

    def __call__(self, x: Array) -> Array:
        """Convolves `x` [B, H, W, C] into [B, H', W', C]."""
        kernel = self.kernel[...].astype(x.dtype)
        convolution = depthwise_convolution if self.lowering == "fast" else grouped_depthwise
        return convolution(x, kernel, stride=self.stride, padding=self.padding_for(x))

    def native(self, x: Array) -> Array:
        """Returns the same by the native kernels."""
        return kernels.depthwise_convolution(x, self.kernel[...], self.stride, self.padding_for(x))

    def is_native(self, x: Array, mode: Mode) -> bool:
        """Returns whether the native kernels are to take `x`, and can: they know two windows and two strides."""
        fits = self.kernel.shape[0] in kernels.DEPTHWISE_WINDOWS and self.kernel.shape[-1] > 1
        return fits and self.stride <= 2 and super().is_native(x, mode)


class BatchNorm(nnx.Module):
    """Batch normalisation over B, H, W with torch's running statistics (Ioffe and Szegedy 2015).

    Training normalises with the biased variance of the batch, and moves the running variance towards the unbiased one.
    torch does the same, so the same training gives the same numbers in both. Flax keeps the biased one.
    """

    def __init__(self, channels: int, rules: LayerRules) -> None:
        self.scale = nnx.Param(initial(np.ones(channels)))
        self.bias = nnx.Param(initial(np.zeros(channels)))
        self.mean = nnx.BatchStat(initial(np.zeros(channels)))
        self.var = nnx.BatchStat(initial(np.ones(channels)))
        self.epsilon, self.momentum = rules.epsilon, rules.momentum

    def __call__(self, x: Array, mode: Mode, activation: Activation = identity) -> Array:
        """Normalises `x` [B, H, W, C] by the batch's statistics or the running ones, as `mode` says, and activate."""
        by_kernels = is_native(x, mode)
        name, rest = native_activation(activation)
        if not mode.batch_statistics:
            parameters = self.running_affine()
            return rest(kernels.affine(x, *parameters, name)) if by_kernels else activation(affine(x, *parameters))
        given = (x, self.scale[...], self.bias[...], self.mean[...], self.epsilon, mode.axis_name)
        if by_kernels:
            y, mean, var = kernels.normalise_by_batch(*given, name)
            y = rest(y)
        else:
            y, mean, var = normalise_by_batch(*given)
            y = activation(y)
        self._move(mean, var, values_per_channel(x, mode.axis_name))
        return y

    def then(self, convolution: Filter, x: Array, mode: Mode, activation: Activation) -> Array:
        """Returns the convolution of what a call makes of `x`: in one pass where the native kernels can."""
        name, rest = native_activation(activation)
        window = convolution.stride, convolution.padding_for(x)
        kernel = convolution.kernel[...]
        in_one_pass = mode.batch_statistics and rest is identity and convolution.bias is None
        if not (in_one_pass and convolution.is_native(x, mode) and can_normalise(kernel, *window)):
            return convolution.convolved(self(x, mode, activation), mode)
        given = (x, self.scale[...], self.bias[...], self.mean[...], kernel)
        y, mean, var = normalised_convolution(*given, self.epsilon, mode.axis_name, name, *window)
        self._move(mean, var, values_per_channel(x, mode.axis_name))
        return y

    def running_affine(self) -> tuple[Array, Array]:
        """Returns the factor and offset [C] by which the running statistics normalise."""
        return factor_and_offset(self.scale[...], self.bias[...], self.mean[...], self.var[...], self.epsilon)

    def _move(self, mean: Array, var: Array, count: int) -> None:
        """Moves the running statistics towards `mean` and the biased `var` [C] of `count` values of each channel."""
        for running, value in ((self.mean, mean), (self.var, var * (count / max(count - 1, 1)))):
            running.set_value(self.momentum * running[...] + (1 - self.momentum) * lax.stop_gradient(value))


def convolve(
    convolution: Filter, batch_norm: BatchNorm, x: Array, mode: Mode, activation: Activation = identity
) -> Array:
    """Returns `x` [B, H, W, I] convolved, normalised and activated: [B, H', W', O]."""
    if mode.batch_statistics or not convolution.is_native(x, mode):
        return batch_norm(convolution.convolved(x, mode), mode, activation)
    name, rest = native_activation(activation)
    window = convolution.stride, convolution.padding_for(x)
    return rest(kernels.folded_convolution(x, convolution.kernel[...], *batch_norm.running_affine(), *window, name))


def convolve_in_turn(
    x: Array, mode: Mode, *steps: tuple[Filter, BatchNorm, Activation] | tuple[Filter, BatchNorm]
) -> Array:
    """Returns `x` [B, H, W, I] after `convolve` by each of `steps`, which leave it [B, H', W', O].

    In training each but the last is normalised while the next convolution loads it, where the native kernels can.
    """
    if not mode.batch_statistics:
        for convolution, batch_norm, *activation in steps:
            x = convolve(convolution, batch_norm, x, mode, *activation)
        return x
    x = steps[0][0].convolved(x, mode)
    for (_, batch_norm, *activation), (convolution, *_) in itertools.pairwise(steps):
        x = batch_norm.then(convolution, x, mode, *activation)
    _, batch_norm, *activation = steps[-1]
    return batch_norm(x, mode, *activation)


class Classifier(nnx.Module):
    """The fully connected layer after pooling; `kernel` is [C, K], `bias` [K]."""

    def __init__(self, channels: int, classes: int, generator: np.random.Generator) -> None:
        bound = (1.0 / channels) ** 0.5
        self.kernel = nnx.Param(initial(generator.uniform(-bound, bound, (channels, classes))))
        self.bias = nnx.Param(initial(np.zeros(classes)))

    def __call__(self, x: Array) -> Array:
        """Maps pooled features [B, C] to logits [B, K]."""
        return x @ self.kernel[...] + self.bias[...].reshape(1, -1)
