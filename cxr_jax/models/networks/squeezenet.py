"""SqueezeNet 1.1 (Iandola et al. 2016), laid out as in torchvision's `squeezenet1_1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.models.activations import relu
from cxr_jax.models.kernels.depthwise import accumulator_of
from cxr_jax.models.layers import Convolution, LayerRules, Lowering, Mode, PointwiseConvolution, concatenate, max_pool
from cxr_jax.models.network import NamedStage, StagedNetwork, refuse_stochastic_depth


@dataclass(frozen=True)
class FireShape:
    """One row of the table: the channels of a fire module."""

    squeezed: int
    expanded: int  # of each of the two convolutions that stand side by side
    is_pooled: bool = False  # the map is halved before it


FIRES = (
    FireShape(16, 64),
    FireShape(16, 64),
    FireShape(32, 128, is_pooled=True),
    FireShape(32, 128),
    FireShape(48, 192, is_pooled=True),
    FireShape(48, 192),
    FireShape(64, 256),
    FireShape(64, 256),
)
"""Version 1.1 of the published code, which halves the map earlier than the paper."""

TINY_FIRES = (FireShape(4, 8), FireShape(6, 12, is_pooled=True))
"""A network of the same kind, small enough to be trained in seconds."""


def original_names(fires: Sequence[FireShape]) -> tuple[tuple[str, str], ...]:
    """Returns our prefixes and torchvision's, which counts activations and pools among the layers."""
    names, position = [("conv1", "features.0"), ("classifier", "classifier.1")], 3
    for index, fire in enumerate(fires):
        position += fire.is_pooled
        names.append((f"fire{index + 2}", f"features.{position}"))
        position += 1
    return tuple(names)


class Fire(nnx.Module):
    """A narrow pointwise convolution, then a pointwise and a 3 x 3 one whose outputs stand side by side."""

    def __init__(self, inputs: int, shape: FireShape, rules: LayerRules, generator: np.random.Generator) -> None:
        self.squeeze = PointwiseConvolution(inputs, shape.squeezed, rules, generator, bias=True)
        self.expand1x1 = PointwiseConvolution(shape.squeezed, shape.expanded, rules, generator, bias=True)
        self.expand3x3 = Convolution(shape.squeezed, shape.expanded, 3, 1, rules, generator, bias=True)
        self.is_pooled = shape.is_pooled

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, H', W', 2 * expanded]."""
        x = max_pool(x, "ceil", mode) if self.is_pooled else x
        x = self.squeeze.activated(x, mode, relu)
        return concatenate([layer.activated(x, mode, relu) for layer in (self.expand1x1, self.expand3x3)], mode)


class ConvolutionalClassifier(nnx.Module):
    """A pointwise convolution to the classes, activated, then the mean over the image; `kernel` is [1, 1, C, K]."""

    def __init__(self, channels: int, classes: int, generator: np.random.Generator) -> None:
        drawn = generator.standard_normal((1, 1, channels, classes), np.float32) * np.float32(0.01)
        self.kernel, self.bias = nnx.Param(jnp.asarray(drawn)), nnx.Param(jnp.zeros((classes,), jnp.float32))

    def __call__(self, x: Array) -> Array:
        """Maps features [B, h * w * C], pixel after pixel, to logits [B, K]."""
        return jnp.mean(self.of_pixels(x.reshape(x.shape[0], -1, self.kernel.shape[2])), 1)

    def of_pixels(self, pixels: Array) -> Array:
        """Maps the features [..., C] of pixels to what each says for every class, [..., K]."""
        bias = self.bias[...].reshape(*(1,) * (pixels.ndim - 1), -1)
        return relu(pixels @ self.kernel[...][0, 0] + bias)


class SqueezeNet(StagedNetwork):
    """SqueezeNet of any table: no BatchNorm, biases, and a classifier that looks at every pixel before it pools.

    What the classifier is given are the features of all pixels, not their mean.
    """

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        fires: Sequence[FireShape] = FIRES,
        stem_channels: int = 64,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        refuse_stochastic_depth("SqueezeNet", stochastic_depth)
        rules = LayerRules(padding="symmetric", activation=relu, epsilon=0.0, lowering=lowering)
        unpadded = LayerRules(padding="valid", activation=relu, epsilon=0.0, lowering=lowering)
        self.conv1 = Convolution(3, stem_channels, 3, 2, unpadded, generator, bias=True)
        self.names, channels = tuple(f"fire{index + 2}" for index in range(len(fires))), stem_channels
        for name, fire in zip(self.names, fires, strict=True):
            setattr(self, name, Fire(channels, fire, rules, generator))
            channels = 2 * fire.expanded
        self.classifier, self.dropout_rate = ConvolutionalClassifier(channels, classes, generator), dropout_rate

    @property
    def stages(self) -> Sequence[NamedStage]:
        """The stem, and every fire module."""
        fires = (NamedStage(name, (name,), getattr(self, name)) for name in self.names)
        return (NamedStage("conv1", ("conv1",), self._stem), *fires)

    def _stem(self, x: Array, mode: Mode) -> Array:
        return max_pool(self.conv1.activated(x, mode, relu), "ceil", mode)

    def reduce(self, features: Array) -> Array:
        """Returns `features` [B, h, w, C] as [B, h * w * C]; in float32 where those are bfloat16."""
        return features.reshape(features.shape[0], -1).astype(accumulator_of(features))

    def evidence(self, features: Array) -> Array:
        """Returns what each pixel says for every class, [B, h, w, K], whose mean is the logit, bias and all."""
        return self.classifier.of_pixels(features)
