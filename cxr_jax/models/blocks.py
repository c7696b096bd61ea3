"""The blocks between stem and head; attributes are named after timm's, so that weights keep their names."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.models.activations import Activation, identity, native_activation
from cxr_jax.models.kernels.depthwise import accumulator_of
from cxr_jax.models.kernels.native.inverted_residual import Folded, inverted_residual, is_known
from cxr_jax.models.layers import (
    BatchNorm,
    Convolution,
    DepthwiseConvolution,
    LayerRules,
    Mode,
    PointwiseConvolution,
    convolve,
    convolve_in_turn,
    is_native,
)
from cxr_jax.models.regularisation import NEVER_SKIPPED, StochasticDepth


@dataclass(frozen=True)
class BlockShape:
    """The size of one block."""

    inputs: int  # channels
    outputs: int  # channels
    stride: int = 1
    expansion: float = 1.0  # channels inside the block, as a multiple of the inputs
    squeeze: float = 0.0  # channels inside squeeze-and-excitation, as a share of the inputs; 0: there is none
    window: int = 3
    depth: StochasticDepth = NEVER_SKIPPED

    @property
    def channels(self) -> int:
        """Channels inside the block."""
        return round_channels(self.inputs * self.expansion)

    @property
    def has_skip(self) -> bool:
        """True if the input can be added to the output."""
        return self.stride == 1 and self.inputs == self.outputs


class Block(nnx.Module):
    """A branch, and around it a skip connection where the shapes allow one."""

    def __init__(self, shape: BlockShape, rules: LayerRules) -> None:
        self.has_skip, self.depth = shape.has_skip, shape.depth
        self.activation = rules.activation

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, H', W', O]."""
        y = self.branch(x, mode)
        return x + self.depth(y, mode) if self.has_skip else y

    def branch(self, x: Array, mode: Mode) -> Array:
        """Returns what the block computes beside its skip connection, [B, H', W', O]."""
        raise NotImplementedError


class DepthwiseSeparable(Block):
    """A depthwise convolution and a linear pointwise one (Howard et al. 2017): the first block of MobileNetV2."""

    def __init__(self, shape: BlockShape, rules: LayerRules, generator: np.random.Generator) -> None:
        super().__init__(shape, rules)
        self.conv_dw = DepthwiseConvolution(shape.inputs, shape.window, shape.stride, rules, generator)
        self.bn1 = BatchNorm(shape.inputs, rules)
        self.conv_pw = PointwiseConvolution(shape.inputs, shape.outputs, rules, generator)
        self.bn2 = BatchNorm(shape.outputs, rules)

    def branch(self, x: Array, mode: Mode) -> Array:
        """Filters every channel, then mix them."""
        return convolve_in_turn(x, mode, (self.conv_dw, self.bn1, self.activation), (self.conv_pw, self.bn2))


class ActivatedDepthwiseSeparable(DepthwiseSeparable):
    """The block of MobileNetV1: both convolutions are activated, and nothing passes by them (Howard et al. 2017)."""

    def __init__(self, shape: BlockShape, rules: LayerRules, generator: np.random.Generator) -> None:
        super().__init__(shape, rules, generator)
        self.has_skip = False

    def branch(self, x: Array, mode: Mode) -> Array:
        """Filters every channel, then mix and activate them."""
        steps = (self.conv_dw, self.bn1, self.activation), (self.conv_pw, self.bn2, self.activation)
        return convolve_in_turn(x, mode, *steps)


class SqueezeExcitation(nnx.Module):
    """Weighs the channels by what the whole image holds (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int, rules: LayerRules, generator: np.random.Generator) -> None:
        self.conv_reduce = PointwiseConvolution(channels, squeezed, rules, generator, bias=True)
        self.conv_expand = PointwiseConvolution(squeezed, channels, rules, generator, bias=True)
        self.activation: Activation = rules.activation

    def __call__(self, x: Array) -> Array:
        """`x` [B, H, W, C] times a factor in (0, 1) for every example and channel."""
        squeezed = jnp.mean(x, (1, 2), keepdims=True, dtype=accumulator_of(x)).astype(x.dtype)  # [B, 1, 1, C]
        factor = jax.nn.sigmoid(self.conv_expand(self.activation(self.conv_reduce(squeezed))))
        # the gradient of the factor is a sum over all pixels, which is taken in the dtype of this product
        return (x.astype(accumulator_of(x)) * factor.astype(accumulator_of(x))).astype(x.dtype)


class InvertedResidual(Block):
    """Widen by a pointwise convolution, filter depthwise, project linearly (Sandler et al. 2018)."""

    def __init__(self, shape: BlockShape, rules: LayerRules, generator: np.random.Generator) -> None:
        super().__init__(shape, rules)
        self.conv_pw = PointwiseConvolution(shape.inputs, shape.channels, rules, generator)
        self.bn1 = BatchNorm(shape.channels, rules)
        self.conv_dw = DepthwiseConvolution(shape.channels, shape.window, shape.stride, rules, generator)
        self.bn2 = BatchNorm(shape.channels, rules)
        squeezed = round(shape.inputs * shape.squeeze)
        self.se = SqueezeExcitation(shape.channels, squeezed, rules, generator) if squeezed else None
        self.conv_pwl = PointwiseConvolution(shape.channels, shape.outputs, rules, generator)
        self.bn3 = BatchNorm(shape.outputs, rules)

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, H', W', O]; in evaluation by one call of the native kernels, where they can."""
        name, rest = native_activation(self.activation)
        convolution = self.conv_dw
        window, channels = convolution.kernel.shape[0], convolution.kernel.shape[-1]
        in_evaluation = not mode.batch_statistics and mode.keys is None
        can = is_native(x, mode) and rest is identity and self.se is None
        if not (in_evaluation and can and is_known(channels, window, convolution.stride)):
            return super().__call__(x, mode)
        steps = (self.conv_pw, self.bn1), (self.conv_dw, self.bn2), (self.conv_pwl, self.bn3)
        folded = (Folded(step.kernel[...], *batch_norm.running_affine()) for step, batch_norm in steps)
        return inverted_residual(x, *folded, convolution.stride, convolution.padding_for(x), name, self.has_skip)

    def branch(self, x: Array, mode: Mode) -> Array:
        """Widens, filter, weigh the channels where the block does so, project."""
        widened = (self.conv_pw, self.bn1, self.activation), (self.conv_dw, self.bn2, self.activation)
        if self.se is None:
            return convolve_in_turn(x, mode, *widened, (self.conv_pwl, self.bn3))
        return convolve(self.conv_pwl, self.bn3, self.se(convolve_in_turn(x, mode, *widened)), mode)


class FusedInvertedResidual(Block):
    """Widen by a dense convolution and project linearly (Gupta and Akin 2020); timm's EdgeResidual."""

    def __init__(self, shape: BlockShape, rules: LayerRules, generator: np.random.Generator) -> None:
        super().__init__(shape, rules)
        self.conv_exp = Convolution(shape.inputs, shape.channels, shape.window, shape.stride, rules, generator)
        self.bn1 = BatchNorm(shape.channels, rules)
        self.conv_pwl = PointwiseConvolution(shape.channels, shape.outputs, rules, generator)
        self.bn2 = BatchNorm(shape.outputs, rules)

    def branch(self, x: Array, mode: Mode) -> Array:
        """Widens and filter in one convolution, then project."""
        return convolve_in_turn(x, mode, (self.conv_exp, self.bn1, self.activation), (self.conv_pwl, self.bn2))


class ConvolutionBlock(Block):
    """One dense convolution: a fused block that does not widen (Tan and Le 2021); timm's ConvBnAct."""

    def __init__(self, shape: BlockShape, rules: LayerRules, generator: np.random.Generator) -> None:
        super().__init__(shape, rules)
        self.conv = Convolution(shape.inputs, shape.outputs, shape.window, shape.stride, rules, generator)
        self.bn1 = BatchNorm(shape.outputs, rules)

    def branch(self, x: Array, mode: Mode) -> Array:
        """Filters and activate: here the activation comes before the sum."""
        return convolve(self.conv, self.bn1, x, mode, self.activation)


def round_channels(channels: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """Returns `channels` rounded to a multiple of `divisor`, never below `round_limit` of the value (the papers'
    rule).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= round_limit * channels else rounded + divisor
