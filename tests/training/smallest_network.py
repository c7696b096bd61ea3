"""The smallest networks that have every kind of layer and block: what costs time in these tests is to compile them."""

from __future__ import annotations

import dataclasses
import functools
from unittest import mock

from cxr_jax.config.schema import ModelConfig
from cxr_jax.models.blocks import ConvolutionBlock, DepthwiseSeparable, FusedInvertedResidual, InvertedResidual
from cxr_jax.models.networks.inverted_residual import Stage
from cxr_jax.models.registry import ARCHITECTURES
from cxr_jax.training.network import Network, build_network

STAGES = {
    "mobilenetv2_tiny": (
        Stage(DepthwiseSeparable, 8, repeats=1, stride=1),
        Stage(InvertedResidual, 12, repeats=1, stride=2, expansion=2),
    ),
    "efficientnetv2_tiny": (
        Stage(ConvolutionBlock, 8, repeats=1, stride=1),
        Stage(FusedInvertedResidual, 16, repeats=1, stride=2, expansion=2),
        Stage(InvertedResidual, 16, repeats=1, stride=1, expansion=2, squeeze=0.25),
    ),
}


def smallest_network(config: ModelConfig, seed: int = 0) -> Network:
    """The network that `config` asks for, cut to two or three blocks."""
    known = ARCHITECTURES[config.name]
    build = functools.partial(known.build, stages=STAGES[config.name], stem_channels=8, head_channels=16)
    with mock.patch.dict(ARCHITECTURES, {config.name: dataclasses.replace(known, build=build)}):
        return build_network(config, seed)
