"""A network as named stages: a stem, blocks, a head, and a classifier on the pooled features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.errors import UserError
from cxr_jax.models.depthwise import accumulator_of
from cxr_jax.models.layers import (
    BatchNorm,
    Classifier,
    Convolution,
    LayerRules,
    Mode,
    PointwiseConvolution,
    convolve,
    dropout,
)

EVALUATION = Mode()
"""Running statistics, no dropout."""

DROPOUT_LAYER = 0
"""Number of the classifier's dropout among the random layers; the blocks' stochastic depth begins at 1."""


class StagedNetwork(nnx.Module):
    """What MobileNetV2 and EfficientNetV2 share: every stage has a name, and can be entered and left there."""

    has_native_kernels = True
    """Tells `can_run_natively` that activations go through the kernels in C++ where `native` is asked for."""

    def __init__(
        self,
        stages: Sequence[Sequence[nnx.Module]],
        *,
        stem_channels: int,
        stage_channels: int,
        head_channels: int,
        classes: int,
        dropout_rate: float,
        rules: LayerRules,
        generator: np.random.Generator,
    ) -> None:
        self.conv_stem = Convolution(3, stem_channels, 3, 2, rules, generator)
        self.bn1 = BatchNorm(stem_channels, rules)
        self.blocks = nnx.List([nnx.List(list(stage)) for stage in stages])
        self.conv_head = PointwiseConvolution(stage_channels, head_channels, rules, generator)
        self.bn2 = BatchNorm(head_channels, rules)
        self.classifier = Classifier(head_channels, classes, generator)
        self.dropout_rate = dropout_rate
        self.activation = rules.activation

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages from input to output; `conv_head` gives the features that are pooled."""
        return ("conv_stem", *(f"blocks.{index}" for index in range(len(self.blocks))), "conv_head")

    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        keys: Array | None = None,
        axis_name: str | None = None,
        frozen_stages: Collection[str] = (),
        native: bool = False,
    ) -> Array:
        """Logits [B, K] of normalised images `x` [B, H, W, 3].

        With `train` BatchNorm uses the batch's statistics (over `axis_name` too, where given) and moves its running
        ones; `keys` [B] switch dropout and stochastic depth on. Stages named in `frozen_stages` run as in evaluation
        all the same. `native` takes bfloat16 images through the kernels in C++, which a program of one CPU device can.
        """
        mode = Mode(train, keys, axis_name, native)
        return self.classify(self._run(x, 0, len(self.stage_names), mode, frozen_stages), mode)

    def features(self, x: Array, mode: Mode = EVALUATION) -> Array:
        """Features [B, h, w, C] before pooling of normalised images `x` [B, H, W, 3]."""
        return self._run(x, 0, len(self.stage_names), mode)

    def pooled(self, x: Array, mode: Mode = EVALUATION) -> Array:
        """Features [B, C], averaged over the image, of normalised images `x` [B, H, W, 3]."""
        return pool(self.features(x, mode))

    def classify(self, features: Array, mode: Mode = EVALUATION) -> Array:
        """Logits [B, K] of features [B, h, w, C]."""
        return self.classify_pooled(pool(features), mode)

    def classify_pooled(self, pooled: Array, mode: Mode = EVALUATION) -> Array:
        """Logits [B, K] of pooled features [B, C]."""
        if mode.keys is not None and self.dropout_rate > 0:
            pooled = dropout(pooled, self.dropout_rate, mode.keys_of(DROPOUT_LAYER))
        return self.classifier(pooled)

    def activations(self, x: Array, stage: str) -> Array:
        """Output [B, h, w, C] of the named stage for normalised images `x` [B, H, W, 3], in evaluation mode.

        Raises ValueError for a stage that the network does not have.
        """
        return self._run(x, 0, self._position(stage) + 1, EVALUATION)

    def forward_from(self, stage: str, activations: Array) -> Array:
        """Logits [B, K] computed on from the output [B, h, w, C] of the named stage, in evaluation mode.

        Raises ValueError for a stage that the network does not have.
        """
        return self.classify(self._run(activations, self._position(stage) + 1, len(self.stage_names), EVALUATION))

    def _position(self, stage: str) -> int:
        if stage not in self.stage_names:
            raise ValueError(f"there is no stage {stage!r}; the stages are {', '.join(self.stage_names)}")
        return self.stage_names.index(stage)

    def _run(self, x: Array, first: int, end: int, mode: Mode, frozen_stages: Collection[str] = ()) -> Array:
        """Output of stage `end` - 1, given the input of stage `first`."""
        names = self.stage_names
        for position in range(first, end):
            stage_mode = mode.frozen() if names[position] in frozen_stages else mode
            if position == 0:
                x = convolve(self.conv_stem, self.bn1, x, stage_mode, self.activation)
            elif position == len(names) - 1:
                x = convolve(self.conv_head, self.bn2, x, stage_mode, self.activation)
            else:
                for block in self.blocks[position - 1]:
                    x = block(x, stage_mode)
        return x


def can_run_natively(model: nnx.Module) -> bool:
    """True if `model` sends bfloat16 activations through the kernels in C++ when it is asked to."""
    return bool(getattr(model, "has_native_kernels", False))


def stage_names_of(model: nnx.Module) -> tuple[str, ...]:
    """Names of the stages of `model` from input to output, as `StagedNetwork.stage_names`.

    Raises:
        UserError: it is a plain module, which has no stages to look into.
    """
    names = getattr(model, "stage_names", None)
    if names is None:
        raise UserError(
            f"{type(model).__name__} has no stages, so that no heat map can be made of it: give it stage_names, "
            "activations and forward_from, as docs/extending.md shows"
        )
    return tuple(names)


def pool(features: Array) -> Array:
    """Features [B, C], averaged over the image, of features [B, h, w, C]; in float32 where those are bfloat16."""
    return jnp.mean(features, (1, 2), dtype=accumulator_of(features))


def stage_of(parameter: str) -> str:
    """Name of the stage that a parameter belongs to, given its dotted name: `bn1.scale` is part of `conv_stem`.

    What comes after the pooling is no stage and keeps the name of its layer, `classifier`.
    """
    parts = parameter.split(".")
    if parts[0] == "blocks":
        return ".".join(parts[:2])
    return {"bn1": "conv_stem", "bn2": "conv_head"}.get(parts[0], parts[0])


def ordered_stages(parameters: Iterable[str]) -> tuple[str, ...]:
    """The stages that `parameters`, dotted names, belong to, from the input to the classifier.

    Raises:
        UserError: a layer is none of those of a network of stages, so that its place is not known.
    """
    kinds = ("conv_stem", "blocks", "conv_head", "classifier")

    def position(stage: str) -> tuple[int, int]:
        kind, _, number = stage.partition(".")
        return kinds.index(kind), int(number or 0)

    stages = {stage_of(name) for name in parameters}
    strangers = sorted(stage for stage in stages if stage.partition(".")[0] not in kinds)
    if strangers:
        raise UserError(
            f"the order of the network's layers is not known, because {strangers[0]} is none of {', '.join(kinds)}: "
            "set optimizer.layer_decay to 1"
        )
    return tuple(sorted(stages, key=position))
