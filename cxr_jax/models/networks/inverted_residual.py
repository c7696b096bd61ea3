"""Networks of inverted residual blocks: a stem, stages of blocks by a table, a head: MobileNets and EfficientNets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.models.blocks import Block, BlockShape, round_channels
from cxr_jax.models.layers import BatchNorm, Classifier, Convolution, LayerRules, Mode, PointwiseConvolution, convolve
from cxr_jax.models.network import NamedStage, StagedNetwork
from cxr_jax.models.regularisation import NEVER_SKIPPED, StochasticDepth


@dataclass(frozen=True)
class Stage:
    """One row of a paper's table: `repeats` blocks of one kind, the first of which has the stride."""

    block: type[Block]
    channels: int
    repeats: int
    stride: int
    expansion: float = 1.0
    squeeze: float = 0.0  # as in BlockShape
    window: int = 3
    is_scaled: bool = True  # the number of its repeats is; its channels always are


@dataclass(frozen=True)
class Scaling:
    """How a table of stages is widened and deepened."""

    width: float = 1.0  # factor of the channels
    depth: float = 1.0  # factor of the repeats
    round_limit: float = 0.9  # as in round_channels

    def channels(self, count: int) -> int:
        """Returns `count` channels of the table in the scaled network."""
        return round_channels(count * self.width, round_limit=self.round_limit)

    def repeats(self, stage: Stage) -> int:
        """Returns how many blocks `stage` has in the scaled network."""
        return math.ceil(stage.repeats * self.depth) if stage.is_scaled else stage.repeats


UNSCALED = Scaling()


def build_stages(
    stages: Sequence[Stage],
    inputs: int,
    scaling: Scaling,
    stochastic_depth: float,
    rules: LayerRules,
    generator: np.random.Generator,
) -> tuple[list[list[Block]], int]:
    """Returns the blocks of every stage, and the channels that the last one gives.

    `inputs` are the channels that the first block is given. The rate of stochastic depth rises linearly from 0 at the
    first block towards `stochastic_depth` after the last, as in timm.
    """
    total = sum(scaling.repeats(stage) for stage in stages)
    built, position = [], 0
    for stage in stages:
        built.append([])
        for index in range(scaling.repeats(stage)):
            shape = BlockShape(
                inputs=inputs,
                outputs=scaling.channels(stage.channels),
                stride=stage.stride if index == 0 else 1,
                expansion=stage.expansion,
                squeeze=stage.squeeze,
                window=stage.window,
                depth=StochasticDepth(stochastic_depth * position / total, position + 1)
                if stochastic_depth
                else NEVER_SKIPPED,
            )
            built[-1].append(stage.block(shape, rules, generator))
            inputs, position = shape.outputs, position + 1
    return built, inputs


class InvertedResidualNetwork(StagedNetwork):
    """A convolution, stages of blocks, and a pointwise convolution, each followed by BatchNorm; named as in timm.

    With no `head_channels` the stages are followed by pooling at once.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[Block]],
        *,
        stem_channels: int,
        stage_channels: int,
        head_channels: int,
        classes: int,
        dropout_rate: float,
        rules: LayerRules,
        generator: np.random.Generator,
    ) -> None:
        self.conv_stem = Convolution(3, stem_channels, 3, 2, rules, generator)
        self.bn1 = BatchNorm(stem_channels, rules)
        self.blocks = nnx.List([nnx.List(list(stage)) for stage in blocks])
        self.has_head = head_channels > 0
        if self.has_head:
            self.conv_head = PointwiseConvolution(stage_channels, head_channels, rules, generator)
            self.bn2 = BatchNorm(head_channels, rules)
        self.classifier = Classifier(head_channels or stage_channels, classes, generator)
        self.dropout_rate = dropout_rate
        self.activation = rules.activation

    @property
    def stages(self) -> Sequence[NamedStage]:
        """The stem, every list of blocks, and the head where there is one."""
        return (
            NamedStage("conv_stem", ("conv_stem", "bn1"), self._stem),
            *(
                NamedStage(f"blocks.{index}", (f"blocks.{index}",), functools.partial(one_after_another, blocks))
                for index, blocks in enumerate(self.blocks)
            ),
            *((NamedStage("conv_head", ("conv_head", "bn2"), self._head),) if self.has_head else ()),
        )

    def _stem(self, x: Array, mode: Mode) -> Array:
        return convolve(self.conv_stem, self.bn1, x, mode, self.activation)

    def _head(self, x: Array, mode: Mode) -> Array:
        return convolve(self.conv_head, self.bn2, x, mode, self.activation)


def one_after_another(blocks: Sequence[Callable[[Array, Mode], Array]], x: Array, mode: Mode) -> Array:
    """Returns the output of the last of `blocks`, each given that of the one before it."""
    for block in blocks:
        x = block(x, mode)
    return x
