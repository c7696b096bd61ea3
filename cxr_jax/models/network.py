"""A network as a list of named stages, then pooling and a classifier."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from cxr_jax.errors import UserError
from cxr_jax.models.kernels.depthwise import accumulator_of
from cxr_jax.models.layers import Mode
from cxr_jax.models.regularisation import dropout

EVALUATION = Mode()
"""Running statistics, no dropout."""

CLASSIFIER = "classifier"
"""The layer after the pooling; it is no stage, and takes its place behind the last one."""

TRANSITION = "transition"
"""The stage between a network's own and the pooling, where its config asks for one; see `head`."""

DENOISER = "denoiser"
"""The stage before a network's own, where its config asks for one; see `denoiser`."""

DROPOUT_LAYER = 0
"""Number of the classifier's dropout among the random layers; the blocks' stochastic depth begins at 1."""

StageLayers = Mapping[str, tuple[str, ...]]
"""The stages from input to output, and the classifier last, each with the layers that its parameters belong to."""


class NamedStage(NamedTuple):
    """A part of a network, from one feature map to the next."""

    name: str
    layers: tuple[str, ...]  # dotted prefixes of the names of its parameters
    run: Callable[[Array, Mode], Array]  # from [B, h, w, C] to [B, h', w', C']


class StagedNetwork(nnx.Module):
    """A network that can be entered and left at every stage.

    A network of this kind gives its `stages` and its `classifier`. Training, Grad-CAM, freezing and rates by stage
    need no more.
    """

    has_native_kernels = True
    """Tells `can_run_natively` that activations go through the kernels in C++ where `native` is asked for."""

    classifier: Callable[[Array], Array]  # from what `reduce` gives to logits [B, K]
    dropout_rate: float = 0.0  # before the classifier

    @property
    def stages(self) -> Sequence[NamedStage]:
        """The stages from input to output; the last one gives the features that are pooled."""
        raise NotImplementedError

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages from input to output."""
        return tuple(stage.name for stage in self.stages)

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
        """Returns logits [B, K] of normalised images `x` [B, H, W, 3].

        With `train` BatchNorm uses the batch's statistics (over `axis_name` too, where given) and moves its running
        ones; `keys` [B] switch dropout and stochastic depth on. Stages named in `frozen_stages` run as in evaluation
        all the same. `native` takes bfloat16 images through the kernels in C++, which a program of one CPU device can.
        """
        mode = Mode(train, keys, axis_name, native)
        return self.classify(self._run(x, self.stages, mode, frozen_stages), mode)

    def features(self, x: Array, mode: Mode = EVALUATION) -> Array:
        """Returns features [B, h, w, C] before pooling of normalised images `x` [B, H, W, 3]."""
        return self._run(x, self.stages, mode)

    def pooled(self, x: Array, mode: Mode = EVALUATION) -> Array:
        """Returns what the classifier is given of normalised images `x` [B, H, W, 3]: `reduce` of their features."""
        return self.reduce(self.features(x, mode))

    def reduce(self, features: Array) -> Array:
        """Returns the mean [B, C] over the image of `features` [B, h, w, C].

        A network whose classifier needs more than the mean gives its own, one row of any length for each image.
        """
        return pool(features)

    def evidence(self, features: Array) -> Array:
        """Returns what speaks for each class where, [B, h, w, K], of `features` [B, h, w, C].

        Its mean over the image, with the classifier's bias, is the logit (class activation maps, Zhou et al., CVPR
        2016). A network whose classifier is no linear layer gives its own.
        """
        return features @ self.classifier.kernel[...]

    def classify(self, features: Array, mode: Mode = EVALUATION) -> Array:
        """Returns logits [B, K] of features [B, h, w, C]."""
        return self.classify_pooled(self.reduce(features), mode)

    def classify_pooled(self, pooled: Array, mode: Mode = EVALUATION) -> Array:
        """Returns logits [B, K] of pooled features [B, C]."""
        if mode.keys is not None and self.dropout_rate > 0:
            pooled = dropout(pooled, self.dropout_rate, mode.keys_of(DROPOUT_LAYER))
        return self.classifier(pooled)

    def features_by_way_of(self, x: Array, stage: str) -> tuple[Array, Array]:
        """Returns features [B, h, w, C] and the output [B, h', w', C'] of the named stage, computed on the way there.

        As `features` in evaluation mode. Raises ValueError for a stage that the network does not have.
        """
        activations = self.activations(x, stage)
        return self._run(activations, self.stages[self._position(stage) + 1 :], EVALUATION), activations

    def activations(self, x: Array, stage: str) -> Array:
        """Returns the output [B, h, w, C] of the named stage for normalised images `x` [B, H, W, 3].

        It is computed in evaluation mode. Raises ValueError for a stage that the network does not have.
        """
        return self._run(x, self.stages[: self._position(stage) + 1], EVALUATION)

    def forward_from(self, stage: str, activations: Array) -> Array:
        """Returns logits [B, K] computed on from the output [B, h, w, C] of the named stage, in evaluation mode.

        Raises ValueError for a stage that the network does not have.
        """
        return self.classify(self._run(activations, self.stages[self._position(stage) + 1 :], EVALUATION))

    def _position(self, stage: str) -> int:
        if stage not in self.stage_names:
            raise ValueError(f"there is no stage {stage!r}; the stages are {', '.join(self.stage_names)}")
        return self.stage_names.index(stage)

    def _run(self, x: Array, stages: Sequence[NamedStage], mode: Mode, frozen_stages: Collection[str] = ()) -> Array:
        """Returns the output of the last of `stages`, given the input of the first; UserError for too small images."""
        for stage in stages:
            x = stage.run(x, mode.frozen() if stage.name in frozen_stages else mode)
            if 0 in x.shape[1:3]:
                raise UserError(
                    f"the images are too small for this network, nothing is left of them behind {stage.name}: set a "
                    "larger data.image_size"
                )
        return x


def refuse_stochastic_depth(network: str, rate: float) -> None:
    """Raises UserError if `rate` is not 0: `network` has no blocks that could be left out."""
    if rate:
        raise UserError(f"{network} has no blocks that can be left out: set model.stochastic_depth to 0")


def can_run_natively(model: nnx.Module) -> bool:
    """Returns whether `model` sends bfloat16 activations through the kernels in C++ when it is asked to."""
    return bool(getattr(model, "has_native_kernels", False))


def stage_names_of(model: nnx.Module) -> tuple[str, ...]:
    """Returns the names of the stages of `model` from input to output, as `StagedNetwork.stage_names`.

    Raises:
        UserError: it is a plain module, which has no stages to look into.
    """
    if not hasattr(model, "stages"):
        raise UserError(
            f"{type(model).__name__} has no stages, so that no heat map can be made of it: make it a StagedNetwork, as "
            "docs/extending.md shows"
        )
    return tuple(stage.name for stage in model.stages)


def pool(features: Array) -> Array:
    """Returns the mean [B, C] over the image of `features` [B, h, w, C]; in float32 where those are bfloat16."""
    return jnp.mean(features, (1, 2), dtype=accumulator_of(features))


def stage_layers_of(model: nnx.Module) -> StageLayers:
    """Returns the stages of `model` with their layers, and the classifier last; nothing for a plain module."""
    stages = {stage.name: stage.layers for stage in getattr(model, "stages", ())}
    return stages | {CLASSIFIER: (CLASSIFIER,)} if stages else {}


def stage_of(parameter: str, stages: StageLayers) -> str | None:
    """Returns the stage that a parameter belongs to, given its dotted name; None if it belongs to none of `stages`."""
    return next((name for name, layers in stages.items() if has_prefix(parameter, layers)), None)


def has_prefix(name: str, prefixes: Collection[str]) -> bool:
    """Returns whether a dotted prefix begins `name`: `blocks.1` begins `blocks.1.0` and not `blocks.10`."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
