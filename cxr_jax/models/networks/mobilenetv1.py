"""MobileNetV1 (Howard et al. 2017), laid out as in timm's `mobilenetv1_100`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_jax.models.activations import relu6
from cxr_jax.models.blocks import ActivatedDepthwiseSeparable
from cxr_jax.models.layers import LayerRules, Lowering, PaddingRule
from cxr_jax.models.networks.inverted_residual import UNSCALED, InvertedResidualNetwork, Stage, build_stages


def _stages(*table: tuple[int, int, int]) -> tuple[Stage, ...]:
    return tuple(Stage(ActivatedDepthwiseSeparable, channels, repeats, stride) for channels, repeats, stride in table)


STAGES = _stages((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
"""The paper's table 1."""

TINY_STAGES = _stages((16, 1, 1), (16, 2, 2), (32, 1, 2))
"""A network of the same kind, small enough to be trained in seconds."""


class MobileNetV1(InvertedResidualNetwork):
    """MobileNetV1 of any width and depth, with ReLU6.

    timm's has padding k // 2 and BatchNorm epsilon 1e-5, TensorFlow's `same` and 1e-3.
    """

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        stages: Sequence[Stage] = STAGES,
        stem_channels: int = 32,
        padding: PaddingRule = "symmetric",
        epsilon: float = 1e-5,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        rules = LayerRules(padding=padding, activation=relu6, epsilon=epsilon, lowering=lowering)
        blocks, channels = build_stages(stages, stem_channels, UNSCALED, stochastic_depth, rules, generator)
        super().__init__(
            blocks,
            stem_channels=stem_channels,
            stage_channels=channels,
            head_channels=0,
            classes=classes,
            dropout_rate=dropout_rate,
            rules=rules,
            generator=generator,
        )
