"""EfficientNet-Lite (Liu 2020), laid out as in timm's `tf_efficientnet_lite0` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_jax.models.activations import relu6
from cxr_jax.models.blocks import DepthwiseSeparable, InvertedResidual
from cxr_jax.models.layers import LayerRules, Lowering
from cxr_jax.models.networks.inverted_residual import UNSCALED, InvertedResidualNetwork, Scaling, Stage, build_stages


def _wide(channels: int, repeats: int, stride: int, window: int, *, is_scaled: bool = True) -> Stage:
    return Stage(InvertedResidual, channels, repeats, stride, expansion=6, window=window, is_scaled=is_scaled)


STAGES = (
    Stage(DepthwiseSeparable, 16, repeats=1, stride=1, is_scaled=False),
    _wide(24, 2, 2, 3),
    _wide(40, 2, 2, 5),
    _wide(80, 3, 2, 3),
    _wide(112, 3, 1, 5),
    _wide(192, 4, 2, 5),
    _wide(320, 1, 1, 3, is_scaled=False),
)
"""EfficientNet's table (Tan and Le 2019) without squeeze-and-excitation; its first and last row are never repeated."""

TINY_STAGES = (
    Stage(DepthwiseSeparable, 8, repeats=1, stride=1, is_scaled=False),
    _wide(16, 1, 2, 5),
    _wide(24, 1, 2, 3, is_scaled=False),
)
"""A network of the same kind, small enough to be trained in seconds."""


class EfficientNetLite(InvertedResidualNetwork):
    """EfficientNet-Lite of any width and depth: TensorFlow's padding, BatchNorm epsilon 1e-3, ReLU6.

    Scaling leaves the width of stem and head as it is.
    """

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
        rules = LayerRules(padding="same", activation=relu6, epsilon=1e-3, lowering=lowering)
        blocks, stage_channels = build_stages(stages, stem_channels, scaling, stochastic_depth, rules, generator)
        super().__init__(
            blocks,
            stem_channels=stem_channels,
            stage_channels=stage_channels,
            head_channels=head_channels,
            classes=classes,
            dropout_rate=dropout_rate,
            rules=rules,
            generator=generator,
        )
