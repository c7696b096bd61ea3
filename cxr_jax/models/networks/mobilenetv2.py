"""MobileNetV2 (Sandler et al. 2018), laid out as in timm's `mobilenetv2_100`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_jax.models.activations import relu6
from cxr_jax.models.blocks import DepthwiseSeparable, InvertedResidual
from cxr_jax.models.layers import LayerRules, Lowering
from cxr_jax.models.networks.inverted_residual import UNSCALED, InvertedResidualNetwork, Scaling, Stage, build_stages

STAGES = (
    Stage(DepthwiseSeparable, 16, repeats=1, stride=1),
    Stage(InvertedResidual, 24, repeats=2, stride=2, expansion=6),
    Stage(InvertedResidual, 32, repeats=3, stride=2, expansion=6),
    Stage(InvertedResidual, 64, repeats=4, stride=2, expansion=6),
    Stage(InvertedResidual, 96, repeats=3, stride=1, expansion=6),
    Stage(InvertedResidual, 160, repeats=3, stride=2, expansion=6),
    Stage(InvertedResidual, 320, repeats=1, stride=1, expansion=6),
)
"""The paper's table 2."""

TINY_STAGES = (
    Stage(DepthwiseSeparable, 8, repeats=1, stride=1),
    Stage(InvertedResidual, 16, repeats=2, stride=2, expansion=4),
    Stage(InvertedResidual, 24, repeats=2, stride=2, expansion=4),
    Stage(InvertedResidual, 32, repeats=1, stride=2, expansion=4),
)
"""A network of the same kind, small enough to be trained in seconds."""


class MobileNetV2(InvertedResidualNetwork):
    """MobileNetV2 of any width and depth: padding k // 2, BatchNorm epsilon 1e-5, ReLU6."""

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        stages: Sequence[Stage] = STAGES,
        stem_channels: int = 32,
        head_channels: int = 1280,
        scaling: Scaling = UNSCALED,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        rules = LayerRules(padding="symmetric", activation=relu6, epsilon=1e-5, lowering=lowering)
        stem_channels = scaling.channels(stem_channels)
        blocks, stage_channels = build_stages(stages, stem_channels, scaling, stochastic_depth, rules, generator)
        super().__init__(
            blocks,
            stem_channels=stem_channels,
            stage_channels=stage_channels,
            # the head is widened with the network and never narrowed (the paper's section 5)
            head_channels=max(head_channels, scaling.channels(head_channels)),
            classes=classes,
            dropout_rate=dropout_rate,
            rules=rules,
            generator=generator,
        )
