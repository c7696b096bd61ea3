"""The smallest network that has every kind of layer and block: what costs time in these tests is to compile it."""

from __future__ import annotations

import dataclasses
from unittest import mock

from cxr_jax.config.schema import ModelConfig
from cxr_jax.models.blocks import DepthwiseSeparable, InvertedResidual
from cxr_jax.models.networks.inverted_residual import Stage
from cxr_jax.models.networks.mobilenetv2 import MobileNetV2
from cxr_jax.models.registry import ARCHITECTURES
from cxr_jax.training.network import Network, build_network

STAGES = (
    Stage(DepthwiseSeparable, 8, repeats=1, stride=1),
    Stage(InvertedResidual, 12, repeats=1, stride=2, expansion=2),
)


def smallest_network(config: ModelConfig, seed: int = 0) -> Network:
    """A MobileNetV2 of two blocks, otherwise as `config` asks for it."""

    def build(**given: object) -> MobileNetV2:
        return MobileNetV2(stages=STAGES, stem_channels=8, head_channels=16, **given)

    smallest = dataclasses.replace(ARCHITECTURES[config.name], build=build)
    with mock.patch.dict(ARCHITECTURES, {config.name: smallest}):
        return build_network(config, seed)
