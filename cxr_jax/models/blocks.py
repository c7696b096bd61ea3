"""The blocks between stem and head; attributes are named after timm's, so that weights keep their names."""

from __future__ import annotations

from flax import nnx
from jax import Array

from cxr_jax.models.layers import (
    BatchNorm,
    DepthwiseConvolution,
    LayerRules,
    Mode,
    PointwiseConvolution,
)


class DepthwiseSeparable(nnx.Module):
    """A depthwise convolution and a linear pointwise one (Howard et al. 2017): the first block of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, *, window: int, stride: int, rules: LayerRules, rngs: nnx.Rngs):
        self.conv_dw = DepthwiseConvolution(inputs, window, stride, rules, rngs)
        self.bn1 = BatchNorm(inputs, rules)
        self.conv_pw = PointwiseConvolution(inputs, outputs, rules, rngs)
        self.bn2 = BatchNorm(outputs, rules)
        self.has_skip = stride == 1 and inputs == outputs
        self.activation = rules.activation

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Map `x` [B, H, W, I] to [B, H', W', O]."""
        y = self.activation(self.bn1(self.conv_dw(x), mode))
        y = self.bn2(self.conv_pw(y), mode)
        return x + y if self.has_skip else y


class InvertedResidual(nnx.Module):
    """Widen by a pointwise convolution, filter depthwise, project linearly (Sandler et al. 2018)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        window: int,
        stride: int,
        expansion: float,
        rules: LayerRules,
        rngs: nnx.Rngs,
    ):
        channels = round_channels(inputs * expansion)
        self.conv_pw = PointwiseConvolution(inputs, channels, rules, rngs)
        self.bn1 = BatchNorm(channels, rules)
        self.conv_dw = DepthwiseConvolution(channels, window, stride, rules, rngs)
        self.bn2 = BatchNorm(channels, rules)
        self.conv_pwl = PointwiseConvolution(channels, outputs, rules, rngs)
        self.bn3 = BatchNorm(outputs, rules)
        self.has_skip = stride == 1 and inputs == outputs
        self.activation = rules.activation

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Map `x` [B, H, W, I] to [B, H', W', O]."""
        y = self.activation(self.bn1(self.conv_pw(x), mode))
        y = self.activation(self.bn2(self.conv_dw(y), mode))
        y = self.bn3(self.conv_pwl(y), mode)
        return x + y if self.has_skip else y


def round_channels(channels: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """`channels` rounded to a multiple of `divisor`, never below `round_limit` of the value (the papers' rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= round_limit * channels else rounded + divisor
