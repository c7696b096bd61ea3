"""EfficientNetV2 (Tan and Le 2021), laid out as in timm's `tf_efficientnetv2_s` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_jax.models.activations import silu
from cxr_jax.models.blocks import ConvolutionBlock, FusedInvertedResidual, InvertedResidual
from cxr_jax.models.layers import LayerRules, Lowering
from cxr_jax.models.networks.inverted_residual import UNSCALED, InvertedResidualNetwork, Scaling, Stage, build_stages


def _plain(channels: int, repeats: int) -> Stage:
    return Stage(ConvolutionBlock, channels, repeats, stride=1)


def _fused(channels: int, repeats: int, expansion: float = 4) -> Stage:
    return Stage(FusedInvertedResidual, channels, repeats, stride=2, expansion=expansion)


def _squeezed(channels: int, repeats: int, stride: int, expansion: float) -> Stage:
    return Stage(InvertedResidual, channels, repeats, stride, expansion, squeeze=0.25)


BASE_STAGES = (
    _plain(16, 1),
    _fused(32, 2),
    _fused(48, 2),
    _squeezed(96, 3, stride=2, expansion=4),
    _squeezed(112, 5, stride=1, expansion=6),
    _squeezed(192, 8, stride=2, expansion=6),
)
"""B0, which B1 to B3 scale."""

SMALL_STAGES = (
    _plain(24, 2),
    _fused(48, 4),
    _fused(64, 4),
    _squeezed(128, 6, stride=2, expansion=4),
    _squeezed(160, 9, stride=1, expansion=6),
    _squeezed(256, 15, stride=2, expansion=6),
)
"""The paper's table 4, with the channels of the published code."""

MEDIUM_STAGES = (
    _plain(24, 3),
    _fused(48, 5),
    _fused(80, 5),
    _squeezed(160, 7, stride=2, expansion=4),
    _squeezed(176, 14, stride=1, expansion=6),
    _squeezed(304, 18, stride=2, expansion=6),
    _squeezed(512, 5, stride=1, expansion=6),
)

LARGE_STAGES = (
    _plain(32, 4),
    _fused(64, 7),
    _fused(96, 7),
    _squeezed(192, 10, stride=2, expansion=4),
    _squeezed(224, 19, stride=1, expansion=6),
    _squeezed(384, 25, stride=2, expansion=6),
    _squeezed(640, 7, stride=1, expansion=6),
)

TINY_STAGES = (
    _plain(8, 1),
    _fused(16, 2, expansion=2),
    _squeezed(24, 2, stride=2, expansion=4),
    _squeezed(32, 1, stride=1, expansion=4),
)
"""A network with every kind of block, small enough to be trained in seconds."""


class EfficientNetV2(InvertedResidualNetwork):
    """EfficientNetV2 of any width and depth: TensorFlow's padding, BatchNorm epsilon 1e-3, SiLU.

    The paper trains S with dropout 0.1 to 0.3 and stochastic depth 0.2; both are off unless asked for.
    """

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        stages: Sequence[Stage] = SMALL_STAGES,
        stem_channels: int = 24,
        head_channels: int = 1280,
        scaling: Scaling = UNSCALED,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        rules = LayerRules(padding="same", activation=silu, epsilon=1e-3, lowering=lowering)
        stem_channels = scaling.channels(stem_channels)
        blocks, stage_channels = build_stages(stages, stem_channels, scaling, stochastic_depth, rules, generator)
        super().__init__(
            blocks,
            stem_channels=stem_channels,
            stage_channels=stage_channels,
            head_channels=scaling.channels(head_channels),
            classes=classes,
            dropout_rate=dropout_rate,
            rules=rules,
            generator=generator,
        )
