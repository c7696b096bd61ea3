"""InceptionV3 (Szegedy et al. 2016), laid out as in timm's `inception_v3`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.models.activations import relu
from cxr_jax.models.layers import (
    BatchNorm,
    Classifier,
    Convolution,
    LayerRules,
    Lowering,
    Mode,
    PointwiseConvolution,
    average_pool,
    concatenate,
    convolve,
    max_pool,
)
from cxr_jax.models.network import NamedStage, StagedNetwork, pool, refuse_stochastic_depth

AUXILIARY = "AuxLogits"
"""The second classifier, which helps to train the network and has no part in what it says."""

Window = int | tuple[int, int]


@dataclass(frozen=True)
class Branches:
    """Makes the convolutions of one network, all widths divided by `divisor`."""

    rules: LayerRules
    generator: np.random.Generator
    divisor: int = 1
    counts_padding: bool = True  # the zeros around a map count in its mean

    def convolution(self, inputs: int, outputs: int, window: Window = 1, stride: int = 1) -> ConvolutionNorm:
        """Returns a convolution to `outputs` / divisor channels; without padding where it has a stride."""
        return ConvolutionNorm(inputs, outputs // self.divisor, window, stride, self.rules, self.generator)


class ConvolutionNorm(nnx.Module):
    """A convolution, BatchNorm and ReLU; padded where it has no stride."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: Window,
        stride: int,
        rules: LayerRules,
        generator: np.random.Generator,
    ) -> None:
        rules = rules if stride == 1 else dataclasses.replace(rules, padding="valid")
        self.conv = (
            PointwiseConvolution(inputs, outputs, rules, generator)
            if window == 1
            else Convolution(inputs, outputs, window, stride, rules, generator)
        )
        self.bn, self.outputs = BatchNorm(outputs, rules), outputs

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, H', W', O]."""
        return convolve(self.conv, self.bn, x, mode, relu)


Step = tuple[int, Window, int] | tuple[int, Window]
"""Channels, window and stride of one convolution; the stride is 1 where it is left out."""


@dataclass(frozen=True)
class Chain:
    """Convolutions one after the other; with `is_forked` the last two are both given the output of those before."""

    name: str  # timm's
    steps: tuple[Step, ...]
    is_forked: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the convolutions, as in timm."""
        if len(self.steps) == 1:
            return (self.name,)
        names = [f"{self.name}_{index + 1}" for index in range(len(self.steps))]
        if self.is_forked:
            fork = names[-2]
            names[-2:] = [f"{fork}a", f"{fork}b"]
        return tuple(names)


@dataclass(frozen=True)
class ModuleShape:
    """One row of the table: chains whose outputs stand side by side, and a pool."""

    name: str  # timm's
    chains: tuple[Chain, ...]
    pooled: int = 0  # channels of the convolution behind the mean of a window; 0: the largest value at stride 2


def _wide(name: str, pooled: int) -> ModuleShape:
    chains = (
        Chain("branch1x1", ((64, 1),)),
        Chain("branch5x5", ((48, 1), (64, 5))),
        Chain("branch3x3dbl", ((64, 1), (96, 3), (96, 3))),
    )
    return ModuleShape(name, chains, pooled)


def _halving(name: str) -> ModuleShape:
    chains = (Chain("branch3x3", ((384, 3, 2),)), Chain("branch3x3dbl", ((64, 1), (96, 3), (96, 3, 2))))
    return ModuleShape(name, chains)


def _factorised(name: str, inside: int) -> ModuleShape:
    row, column = (1, 7), (7, 1)
    double = ((inside, 1), (inside, column), (inside, row), (inside, column), (192, row))
    chains = (
        Chain("branch1x1", ((192, 1),)),
        Chain("branch7x7", ((inside, 1), (inside, row), (192, column))),
        Chain("branch7x7dbl", double),
    )
    return ModuleShape(name, chains, pooled=192)


def _halving_again(name: str) -> ModuleShape:
    long = ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2))
    return ModuleShape(name, (Chain("branch3x3", ((192, 1), (320, 3, 2))), Chain("branch7x7x3", long)))


def _forked(name: str) -> ModuleShape:
    row, column = (384, (1, 3)), (384, (3, 1))
    chains = (
        Chain("branch1x1", ((320, 1),)),
        Chain("branch3x3", ((384, 1), row, column), is_forked=True),
        Chain("branch3x3dbl", ((448, 1), (384, 3), row, column), is_forked=True),
    )
    return ModuleShape(name, chains, pooled=192)


MODULES = (
    _wide("Mixed_5b", 32),
    _wide("Mixed_5c", 64),
    _wide("Mixed_5d", 64),
    _halving("Mixed_6a"),
    _factorised("Mixed_6b", 128),
    _factorised("Mixed_6c", 160),
    _factorised("Mixed_6d", 160),
    _factorised("Mixed_6e", 192),
    _halving_again("Mixed_7a"),
    _forked("Mixed_7b"),
    _forked("Mixed_7c"),
)
"""The published code's, which the paper's table 1 sums up."""

TINY_MODULES = (
    _wide("Mixed_5b", 32),
    _halving("Mixed_6a"),
    _factorised("Mixed_6b", 128),
    _halving_again("Mixed_7a"),
    _forked("Mixed_7b"),
)
"""One of every kind."""


class Inception(nnx.Module):
    """Chains of convolutions and a pool, whose outputs stand side by side."""

    def __init__(self, inputs: int, shape: ModuleShape, branches: Branches) -> None:
        self.shape, self.counts_padding = shape, branches.counts_padding
        self.outputs = 0
        for chain in shape.chains:
            channels = inputs
            for index, (layer, step) in enumerate(zip(chain.layers, chain.steps, strict=True)):
                made = branches.convolution(channels, *step)
                setattr(self, layer, made)
                is_first_of_fork = chain.is_forked and index == len(chain.steps) - 2
                channels = channels if is_first_of_fork else made.outputs
            self.outputs += channels * (2 if chain.is_forked else 1)
        if shape.pooled:
            self.branch_pool = branches.convolution(inputs, shape.pooled)
        self.outputs += self.branch_pool.outputs if shape.pooled else inputs

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, H', W', O]."""
        found = [self._along(chain, x, mode) for chain in self.shape.chains]
        if self.shape.pooled:
            mean = average_pool(x, "symmetric", mode, counts_padding=self.counts_padding)
            return concatenate([*found, self.branch_pool(mean, mode)], mode)
        return concatenate([*found, max_pool(x, "valid", mode)], mode)

    def _along(self, chain: Chain, x: Array, mode: Mode) -> Array:
        *straight, last = (getattr(self, layer) for layer in chain.layers)
        other = straight.pop() if chain.is_forked else None
        for convolution in straight:
            x = convolution(x, mode)
        return last(x, mode) if other is None else concatenate([other(x, mode), last(x, mode)], mode)


class AuxiliaryClassifier(nnx.Module):
    """A classifier that looks at a map in the midst of the network."""

    def __init__(self, inputs: int, classes: int, branches: Branches) -> None:
        unpadded = dataclasses.replace(branches, rules=dataclasses.replace(branches.rules, padding="valid"))
        self.conv0 = branches.convolution(inputs, 128)
        self.conv1 = unpadded.convolution(self.conv0.outputs, 768, 5)
        self.fc = Classifier(self.conv1.outputs, classes, branches.generator)

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to logits [B, K]; it has to be 17 pixels or more on each side."""
        x = average_pool(x, "valid", mode, window=5, stride=3)
        return self.fc(pool(self.conv1(self.conv0(x, mode), mode)))


class InceptionV3(StagedNetwork):
    """InceptionV3 of any table: BatchNorm epsilon 1e-3, ReLU, and no padding in the stem.

    In timm the zeros around a map count in its mean, in TensorFlow they do not. With `has_auxiliary` there is a second
    classifier behind Mixed_6e, for `auxiliary_logits`.
    """

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        modules: Sequence[ModuleShape] = MODULES,
        divisor: int = 1,
        counts_padding: bool = True,
        has_auxiliary: bool = False,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        refuse_stochastic_depth("InceptionV3", stochastic_depth)
        rules = LayerRules(padding="symmetric", activation=relu, epsilon=1e-3, lowering=lowering)
        branches = Branches(rules, generator, divisor, counts_padding)
        unpadded = dataclasses.replace(branches, rules=dataclasses.replace(rules, padding="valid"))
        self.Conv2d_1a_3x3 = unpadded.convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = unpadded.convolution(32 // divisor, 32, 3)
        self.Conv2d_2b_3x3 = branches.convolution(32 // divisor, 64, 3)
        self.Conv2d_3b_1x1 = branches.convolution(64 // divisor, 80)
        self.Conv2d_4a_3x3 = unpadded.convolution(80 // divisor, 192, 3)
        channels = 192 // divisor
        self.names = tuple(shape.name for shape in modules)
        for shape in modules:
            made = Inception(channels, shape, branches)
            setattr(self, shape.name, made)
            channels = made.outputs
            if has_auxiliary and shape.name == "Mixed_6e":
                setattr(self, AUXILIARY, AuxiliaryClassifier(channels, classes, branches))
        self.classifier, self.dropout_rate = Classifier(channels, classes, generator), dropout_rate

    @property
    def stages(self) -> Sequence[NamedStage]:
        """The two parts of the stem with their pooling, and every module."""
        return (
            self._pooled("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
            self._pooled("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
            *(NamedStage(name, (name,), getattr(self, name)) for name in self.names),
        )

    def auxiliary_logits(self, x: Array, mode: Mode) -> Array:
        """Returns the logits [B, K] of the second classifier for normalised images `x` [B, H, W, 3]."""
        until = self.stage_names.index("Mixed_6e") + 1
        return getattr(self, AUXILIARY)(self._run(x, self.stages[:until], mode), mode)

    def _pooled(self, *layers: str) -> NamedStage:
        """Returns the stage of `layers` and the pool behind them, which is called like the last."""
        convolutions: list[Callable[[Array, Mode], Array]] = [getattr(self, layer) for layer in layers]

        def run(x: Array, mode: Mode) -> Array:
            for convolution in convolutions:
                x = convolution(x, mode)
            return max_pool(x, "valid", mode)

        return NamedStage(layers[-1], layers, run)
