"""The table of stages that a network is described by, and the blocks built from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.models.blocks import Block, BlockShape, round_channels
from cxr_jax.models.layers import NEVER_SKIPPED, LayerRules, StochasticDepth


@dataclass(frozen=True)
class Stage:
    """One row of a paper's table: `repeats` blocks of one kind, the first of which has the stride."""

    block: type[Block]
    channels: int
    repeats: int
    stride: int
    expansion: float = 1.0
    squeeze: float = 0.0  # as in BlockShape


@dataclass(frozen=True)
class Scaling:
    """How a table of stages is widened and deepened."""

    width: float = 1.0  # factor of the channels
    depth: float = 1.0  # factor of the repeats
    round_limit: float = 0.9  # as in round_channels

    def channels(self, count: int) -> int:
        """`count` channels of the table in the scaled network."""
        return round_channels(count * self.width, round_limit=self.round_limit)

    def repeats(self, count: int) -> int:
        """`count` blocks of the table in the scaled network."""
        return math.ceil(count * self.depth)


UNSCALED = Scaling()


def build_stages(
    stages: Sequence[Stage],
    inputs: int,
    scaling: Scaling,
    stochastic_depth: float,
    rules: LayerRules,
    generator: np.random.Generator,
) -> tuple[list[list[Block]], int]:
    """The blocks of every stage, and the channels that the last one gives.

    `inputs` are the channels that the first block is given. The rate of stochastic depth rises linearly from 0 at the
    first block towards `stochastic_depth` after the last, as in timm.
    """
    total = sum(scaling.repeats(stage.repeats) for stage in stages)
    built, position = [], 0
    for stage in stages:
        built.append([])
        for index in range(scaling.repeats(stage.repeats)):
            shape = BlockShape(
                inputs=inputs,
                outputs=scaling.channels(stage.channels),
                stride=stage.stride if index == 0 else 1,
                expansion=stage.expansion,
                squeeze=stage.squeeze,
                depth=StochasticDepth(stochastic_depth * position / total, position + 1)
                if stochastic_depth
                else NEVER_SKIPPED,
            )
            built[-1].append(stage.block(shape, rules, generator))
            inputs, position = shape.outputs, position + 1
    return built, inputs
