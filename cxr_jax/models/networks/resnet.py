"""ResNet (He et al. 2016), laid out as in timm's and torchvision's `resnet18` and `resnet50`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.models.activations import relu
from cxr_jax.models.layers import (
    BatchNorm,
    Classifier,
    Convolution,
    Filter,
    LayerRules,
    Lowering,
    Mode,
    PointwiseConvolution,
    convolve,
    max_pool,
)
from cxr_jax.models.network import NamedStage, StagedNetwork
from cxr_jax.models.networks.inverted_residual import one_after_another
from cxr_jax.models.regularisation import NEVER_SKIPPED, StochasticDepth


@dataclass(frozen=True)
class ResidualShape:
    """The size of one block."""

    inputs: int  # channels
    channels: int  # inside
    outputs: int  # channels
    stride: int
    depth: StochasticDepth


class BasicBlock(nnx.Module):
    """Two 3 x 3 convolutions, and a skip connection that is a convolution where the shapes differ."""

    expansion = 1
    """Channels of the output, as a multiple of those inside."""

    def __init__(self, shape: ResidualShape, rules: LayerRules, generator: np.random.Generator) -> None:
        self.conv1 = Convolution(shape.inputs, shape.channels, 3, shape.stride, rules, generator)
        self.bn1 = BatchNorm(shape.channels, rules)
        self.conv2 = Convolution(shape.channels, shape.outputs, 3, 1, rules, generator)
        self.bn2 = BatchNorm(shape.outputs, rules)
        self.downsample, self.depth = _skip(shape, rules, generator), shape.depth

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, H', W', O]; the sum is activated."""
        skip = x if self.downsample is None else convolve(*self.downsample, x, mode)
        return relu(skip + self.depth(self.branch(x, mode), mode))

    def branch(self, x: Array, mode: Mode) -> Array:
        """Returns what the block computes beside its skip connection, [B, H', W', O]."""
        return convolve(self.conv2, self.bn2, convolve(self.conv1, self.bn1, x, mode, relu), mode)


class Bottleneck(BasicBlock):
    """Narrow, filter, widen; the stride is that of the 3 x 3 convolution (version 1.5, as torch has it)."""

    expansion = 4

    def __init__(self, shape: ResidualShape, rules: LayerRules, generator: np.random.Generator) -> None:
        self.conv1 = PointwiseConvolution(shape.inputs, shape.channels, rules, generator)
        self.bn1 = BatchNorm(shape.channels, rules)
        self.conv2 = Convolution(shape.channels, shape.channels, 3, shape.stride, rules, generator)
        self.bn2 = BatchNorm(shape.channels, rules)
        self.conv3 = PointwiseConvolution(shape.channels, shape.outputs, rules, generator)
        self.bn3 = BatchNorm(shape.outputs, rules)
        self.downsample, self.depth = _skip(shape, rules, generator), shape.depth

    def branch(self, x: Array, mode: Mode) -> Array:
        """Returns what the block computes beside its skip connection, [B, H', W', O]."""
        y = convolve(self.conv1, self.bn1, x, mode, relu)
        y = convolve(self.conv2, self.bn2, y, mode, relu)
        return convolve(self.conv3, self.bn3, y, mode)


def _skip(shape: ResidualShape, rules: LayerRules, generator: np.random.Generator) -> nnx.List | None:
    """Returns convolution and BatchNorm of the skip connection; None where the input can be added as it is."""
    if shape.stride == 1 and shape.inputs == shape.outputs:
        return None
    convolution: Filter = (
        PointwiseConvolution(shape.inputs, shape.outputs, rules, generator)
        if shape.stride == 1
        else Convolution(shape.inputs, shape.outputs, 1, shape.stride, rules, generator)
    )
    return nnx.List([convolution, BatchNorm(shape.outputs, rules)])


class ResNet(StagedNetwork):
    """ResNet of any depth and width: padding k // 2, pooling padded by less than every value, epsilon 1e-5, ReLU."""

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        block: type[BasicBlock],
        repeats: Sequence[int],
        channels: int = 64,
        stem_channels: int = 64,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        rules = LayerRules(padding="symmetric", activation=relu, epsilon=1e-5, lowering=lowering)
        self.conv1, self.bn1 = Convolution(3, stem_channels, 7, 2, rules, generator), BatchNorm(stem_channels, rules)
        self.names = tuple(f"layer{index + 1}" for index in range(len(repeats)))
        inputs, position, total = stem_channels, 0, sum(repeats)
        for index, (name, count) in enumerate(zip(self.names, repeats, strict=True)):
            blocks, inside = [], channels * 2**index
            for place in range(count):
                # as in timm the last block is skipped by the whole rate
                rate = stochastic_depth * position / max(total - 1, 1)
                depth = StochasticDepth(rate, position + 1) if rate else NEVER_SKIPPED
                stride = 2 if index > 0 and place == 0 else 1
                outputs = inside * block.expansion
                blocks.append(block(ResidualShape(inputs, inside, outputs, stride, depth), rules, generator))
                inputs, position = outputs, position + 1
            setattr(self, name, nnx.List(blocks))
        self.classifier, self.dropout_rate = Classifier(inputs, classes, generator), dropout_rate

    @property
    def stages(self) -> Sequence[NamedStage]:
        """The stem with its pooling, and every list of blocks."""
        layers = (
            NamedStage(name, (name,), functools.partial(one_after_another, getattr(self, name))) for name in self.names
        )
        return (NamedStage("conv1", ("conv1", "bn1"), self._stem), *layers)

    def _stem(self, x: Array, mode: Mode) -> Array:
        return max_pool(convolve(self.conv1, self.bn1, x, mode, relu), "symmetric", mode)
