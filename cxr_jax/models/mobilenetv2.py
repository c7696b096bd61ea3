"""MobileNetV2 (Sandler et al. 2018), laid out as in timm's `mobilenetv2_100`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from flax import nnx

from cxr_jax.models.blocks import DepthwiseSeparable, InvertedResidual, round_channels
from cxr_jax.models.layers import LayerRules, Lowering, relu6
from cxr_jax.models.network import StagedNetwork


class Stage(NamedTuple):
    """One row of the paper's table 2: `repeats` blocks, the first of which has the stride."""

    expansion: float
    channels: int
    repeats: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)

TINY_STAGES = (Stage(1, 8, 1, 1), Stage(4, 16, 2, 2), Stage(4, 24, 2, 2), Stage(4, 32, 1, 2))
"""A network of the same kind, small enough to be trained in seconds."""


class MobileNetV2(StagedNetwork):
    """MobileNetV2 of any width and depth: padding k // 2, BatchNorm epsilon 1e-5, ReLU6."""

    def __init__(
        self,
        *,
        classes: int,
        rngs: nnx.Rngs,
        stages: Sequence[Stage] = STAGES,
        stem_channels: int = 32,
        head_channels: int = 1280,
        width_multiplier: float = 1.0,
        depth_multiplier: float = 1.0,
        dropout_rate: float = 0.0,
        lowering: Lowering = "fast",
    ):
        rules = LayerRules(padding="symmetric", activation=relu6, epsilon=1e-5, lowering=lowering)
        stem_channels = round_channels(stem_channels * width_multiplier)
        inputs, blocks = stem_channels, []
        for stage in stages:
            outputs = round_channels(stage.channels * width_multiplier)
            blocks.append([])
            for index in range(math.ceil(stage.repeats * depth_multiplier)):
                stride = stage.stride if index == 0 else 1
                shape = {"window": 3, "stride": stride, "rules": rules, "rngs": rngs}
                if stage.expansion == 1:
                    blocks[-1].append(DepthwiseSeparable(inputs, outputs, **shape))
                else:
                    blocks[-1].append(InvertedResidual(inputs, outputs, expansion=stage.expansion, **shape))
                inputs = outputs
        super().__init__(
            blocks,
            stem_channels=stem_channels,
            stage_channels=inputs,
            # the head is widened with the network and never narrowed (the paper's section 5)
            head_channels=max(head_channels, round_channels(head_channels * width_multiplier)),
            classes=classes,
            dropout_rate=dropout_rate,
            rules=rules,
            rngs=rngs,
        )
