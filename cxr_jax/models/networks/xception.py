"""Xception (Chollet 2017), laid out as in timm's `legacy_xception`, which has Keras' layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.models.activations import Activation, identity, relu
from cxr_jax.models.layers import (
    BatchNorm,
    Classifier,
    Convolution,
    DepthwiseConvolution,
    LayerRules,
    Lowering,
    Mode,
    PaddingRule,
    PointwiseConvolution,
    convolve,
    max_pool,
)
from cxr_jax.models.network import NamedStage, StagedNetwork, refuse_stochastic_depth


@dataclass(frozen=True)
class XceptionShape:
    """One row of the table: the channels that each separable convolution of a block gives."""

    widths: tuple[int, ...]
    stride: int = 1
    starts_activated: bool = True  # the block's input is activated before its first convolution


def _middle(channels: int) -> XceptionShape:
    return XceptionShape((channels,) * 3)


BLOCKS = (
    XceptionShape((128, 128), stride=2, starts_activated=False),
    XceptionShape((256, 256), stride=2),
    XceptionShape((728, 728), stride=2),
    *(_middle(728) for _ in range(8)),
    XceptionShape((728, 1024), stride=2),
)
"""The paper's figure 5."""

TINY_BLOCKS = (
    XceptionShape((16, 16), stride=2, starts_activated=False),
    XceptionShape((24, 24), stride=2),
    _middle(24),
    XceptionShape((24, 32), stride=2),
)
"""A network of the same kind, small enough to be trained in seconds."""


def original_names(blocks: Sequence[XceptionShape]) -> tuple[tuple[str, str], ...]:
    """Returns our prefixes and timm's, which counts activations among the layers of a block."""
    names = [("classifier", "fc")]
    for number, shape in enumerate(blocks, 1):
        for index in range(len(shape.widths)):
            position = 3 * index + shape.starts_activated
            names.append((f"block{number}.separable{index + 1}", f"block{number}.rep.{position}"))
            names.append((f"block{number}.bn{index + 1}", f"block{number}.rep.{position + 1}"))
    return tuple(names)


class SeparableConvolution(nnx.Module):
    """A depthwise 3 x 3 convolution, and a pointwise one with nothing between the two."""

    def __init__(self, inputs: int, outputs: int, rules: LayerRules, generator: np.random.Generator) -> None:
        self.conv1 = DepthwiseConvolution(inputs, 3, 1, rules, generator)
        self.pointwise = PointwiseConvolution(inputs, outputs, rules, generator)

    def __call__(self, x: Array, batch_norm: BatchNorm, mode: Mode, activation: Activation = identity) -> Array:
        """Maps `x` [B, H, W, I] to [B, H, W, O], normalised and activated."""
        return convolve(self.pointwise, batch_norm, self.conv1.convolved(x, mode), mode, activation)


class XceptionBlock(nnx.Module):
    """Activated separable convolutions, pooled where the block has a stride, and a skip connection."""

    def __init__(
        self,
        inputs: int,
        shape: XceptionShape,
        pool_padding: PaddingRule,
        rules: LayerRules,
        generator: np.random.Generator,
    ) -> None:
        self.shape, self.pool_padding = shape, pool_padding
        channels = inputs
        for index, width in enumerate(shape.widths, 1):
            setattr(self, f"separable{index}", SeparableConvolution(channels, width, rules, generator))
            setattr(self, f"bn{index}", BatchNorm(width, rules))
            channels = width
        self.has_skip = shape.stride != 1 or inputs != channels
        if self.has_skip:
            self.skip = Convolution(inputs, channels, 1, shape.stride, rules, generator)
            self.skipbn = BatchNorm(channels, rules)

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, H', W', O]."""
        y = relu(x) if self.shape.starts_activated else x
        count = len(self.shape.widths)
        for index in range(1, count + 1):
            activation = relu if index < count else identity
            y = getattr(self, f"separable{index}")(y, getattr(self, f"bn{index}"), mode, activation)
        y = y if self.shape.stride == 1 else max_pool(y, self.pool_padding, mode, stride=self.shape.stride)
        return y + (convolve(self.skip, self.skipbn, x, mode) if self.has_skip else x)


class Xception(StagedNetwork):
    """Xception of any table, with ReLU and a stem without padding.

    timm's pools pad on every side and its BatchNorm has epsilon 1e-5; those of Keras pad as `same`, with 1e-3.
    """

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        blocks: Sequence[XceptionShape] = BLOCKS,
        stem_channels: tuple[int, int] = (32, 64),
        head_channels: tuple[int, int] = (1536, 2048),
        pool_padding: PaddingRule = "symmetric",
        epsilon: float = 1e-5,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        refuse_stochastic_depth("Xception", stochastic_depth)
        rules = LayerRules(padding="symmetric", activation=relu, epsilon=epsilon, lowering=lowering)
        unpadded = dataclasses.replace(rules, padding="valid")
        first, second = stem_channels
        self.conv1, self.bn1 = Convolution(3, first, 3, 2, unpadded, generator), BatchNorm(first, rules)
        self.conv2, self.bn2 = Convolution(first, second, 3, 1, unpadded, generator), BatchNorm(second, rules)
        self.names, channels = tuple(f"block{number}" for number in range(1, len(blocks) + 1)), second
        for name, shape in zip(self.names, blocks, strict=True):
            setattr(self, name, XceptionBlock(channels, shape, pool_padding, rules, generator))
            channels = shape.widths[-1]
        first, second = head_channels
        self.conv3, self.bn3 = SeparableConvolution(channels, first, rules, generator), BatchNorm(first, rules)
        self.conv4, self.bn4 = SeparableConvolution(first, second, rules, generator), BatchNorm(second, rules)
        self.classifier, self.dropout_rate = Classifier(second, classes, generator), dropout_rate

    @property
    def stages(self) -> Sequence[NamedStage]:
        """The stem, every block, and the two convolutions behind them."""
        return (
            NamedStage("conv1", ("conv1", "bn1", "conv2", "bn2"), self._stem),
            *(NamedStage(name, (name,), getattr(self, name)) for name in self.names),
            NamedStage("conv4", ("conv3", "bn3", "conv4", "bn4"), self._head),
        )

    def _stem(self, x: Array, mode: Mode) -> Array:
        y = convolve(self.conv1, self.bn1, x, mode, relu)
        return convolve(self.conv2, self.bn2, y, mode, relu)

    def _head(self, x: Array, mode: Mode) -> Array:
        return self.conv4(self.conv3(x, self.bn3, mode, relu), self.bn4, mode, relu)
