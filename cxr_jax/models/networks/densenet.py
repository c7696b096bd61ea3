"""DenseNet (Huang et al. 2017), laid out as in timm's and torchvision's `densenet121`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.models.activations import relu
from cxr_jax.models.layers import (
    BatchNorm,
    Classifier,
    Convolution,
    LayerRules,
    Lowering,
    Mode,
    PointwiseConvolution,
    average_pool,
    concatenate,
    convolve,
    max_pool,
)
from cxr_jax.models.network import NamedStage, StagedNetwork, refuse_stochastic_depth

ORIGINAL_NAMES = (("classifier", "classifier"), ("", "features."))
"""Our prefixes and those of timm and torchvision."""

BOTTLENECK = 4
"""Channels between the two convolutions of a layer, as a multiple of the growth."""


class DenseLayer(nnx.Module):
    """Normalises and narrows all maps so far, then gives `growth` new ones."""

    def __init__(self, inputs: int, growth: int, rules: LayerRules, generator: np.random.Generator) -> None:
        self.norm1 = BatchNorm(inputs, rules)
        self.conv1 = PointwiseConvolution(inputs, BOTTLENECK * growth, rules, generator)
        self.norm2 = BatchNorm(BOTTLENECK * growth, rules)
        self.conv2 = Convolution(BOTTLENECK * growth, growth, 3, 1, rules, generator)

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, C] to [B, H, W, growth]."""
        return self.conv2.convolved(convolve(self.conv1, self.norm2, self.norm1(x, mode, relu), mode, relu), mode)


class DenseBlock(nnx.Module):
    """Layers of which each is given the outputs of all before it."""

    def __init__(self, inputs: int, count: int, growth: int, rules: LayerRules, generator: np.random.Generator) -> None:
        self.names = tuple(f"denselayer{index + 1}" for index in range(count))
        for index, name in enumerate(self.names):
            setattr(self, name, DenseLayer(inputs + index * growth, growth, rules, generator))

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, C] to [B, H, W, C + count * growth]."""
        for name in self.names:
            x = concatenate([x, getattr(self, name)(x, mode)], mode)
        return x


class Transition(nnx.Module):
    """Halves the channels by a pointwise convolution, and the map by its mean."""

    def __init__(self, inputs: int, rules: LayerRules, generator: np.random.Generator) -> None:
        self.norm = BatchNorm(inputs, rules)
        self.conv = PointwiseConvolution(inputs, inputs // 2, rules, generator)

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, C] to [B, H // 2, W // 2, C // 2]."""
        return average_pool(self.conv.convolved(self.norm(x, mode, relu), mode), "valid", mode, window=2, stride=2)


class DenseNet(StagedNetwork):
    """DenseNet of any depth and growth: padding k // 2, BatchNorm epsilon 1e-5, ReLU."""

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        repeats: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        stem_channels: int = 64,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        refuse_stochastic_depth("DenseNet", stochastic_depth)
        rules = LayerRules(padding="symmetric", activation=relu, epsilon=1e-5, lowering=lowering)
        self.conv0 = Convolution(3, stem_channels, 7, 2, rules, generator)
        self.norm0 = BatchNorm(stem_channels, rules)
        channels, names = stem_channels, []
        for index, count in enumerate(repeats, 1):
            if names:
                names.append(f"transition{index - 1}")
                setattr(self, names[-1], Transition(channels, rules, generator))
                channels //= 2
            names.append(f"denseblock{index}")
            setattr(self, names[-1], DenseBlock(channels, count, growth, rules, generator))
            channels += count * growth
        self.names, self.norm5 = tuple(names), BatchNorm(channels, rules)
        self.classifier, self.dropout_rate = Classifier(channels, classes, generator), dropout_rate

    @property
    def stages(self) -> Sequence[NamedStage]:
        """The stem with its pooling, every block and transition, and the last BatchNorm."""
        return (
            NamedStage("conv0", ("conv0", "norm0"), self._stem),
            *(NamedStage(name, (name,), getattr(self, name)) for name in self.names),
            NamedStage("norm5", ("norm5",), self._last),
        )

    def _stem(self, x: Array, mode: Mode) -> Array:
        return max_pool(convolve(self.conv0, self.norm0, x, mode, relu), "symmetric", mode)

    def _last(self, x: Array, mode: Mode) -> Array:
        return self.norm5(x, mode, relu)
