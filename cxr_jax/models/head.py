"""What stands behind the last stage of a network: a transition layer, a pooling over the image, and the classifier.

The layout is that of Wang, Peng, Lu, Lu, Bagheri and Summers, "ChestX-ray8", CVPR 2017: the transition layer gives any
network the same number of maps, the pooling is between their mean and their maximum, and the classifier's weights make
of the maps what speaks for each finding where (a class activation map). Grad-CAM at the last stage is the same map up
to its scale, whatever the pooling: the shares that places have in a pooled map sum to one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from cxr_jax.errors import UserError
from cxr_jax.models.activations import relu
from cxr_jax.models.kernels.depthwise import accumulator_of
from cxr_jax.models.layers import BatchNorm, Classifier, Convolution, LayerRules, Lowering, Mode, convolve
from cxr_jax.models.network import TRANSITION, NamedStage, StagedNetwork, pool

Pooling = Literal["average", "max", "log_sum_exp"]

TRANSITION_WINDOW = 3
"""Rows and columns of the transition layer's kernel; the paper does not tell its own."""


@dataclass(frozen=True)
class Head:
    """What is asked for behind the last stage."""

    pooling: Pooling = "average"
    sharpness: float = 10.0  # r of log-sum-exp: near 0 it is the mean, and the larger the nearer to the maximum
    transition: int = 0  # channels of the transition layer; 0: there is none

    @property
    def is_usual(self) -> bool:
        """True if every network has it anyway: no transition layer, and its own pooling."""
        return self.pooling == "average" and self.transition == 0


USUAL = Head()


class _Told(Protocol):
    """What a config says of a model, or a run of its network."""

    @property
    def pooling(self) -> Pooling: ...
    @property
    def pooling_sharpness(self) -> float: ...
    @property
    def transition(self) -> int: ...


def head_of(told: _Told) -> Head:
    """Returns the head that a model's config or a run's description asks for."""
    return Head(told.pooling, told.pooling_sharpness, told.transition)


class Transition(nnx.Module):
    """A convolution that keeps the size of the maps, normalised and activated by ReLU."""

    def __init__(self, inputs: int, channels: int, lowering: Lowering, generator: np.random.Generator) -> None:
        rules = LayerRules(padding="symmetric", activation=relu, epsilon=1e-5, lowering=lowering)
        self.conv = Convolution(inputs, channels, TRANSITION_WINDOW, 1, rules, generator)
        self.norm = BatchNorm(channels, rules)

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, H, W, O]."""
        return convolve(self.conv, self.norm, x, mode, relu)


class _WithHead(StagedNetwork):
    """What a network with a head does otherwise than the one that it is made of."""

    head: Head
    classifier: Classifier
    transition: Transition | None

    @property
    def stages(self) -> Sequence[NamedStage]:
        """Those of the network, and the transition layer where there is one."""
        own = super().stages
        return own if self.transition is None else (*own, NamedStage(TRANSITION, (TRANSITION,), self.transition))

    def reduce(self, features: Array) -> Array:
        """Returns `features` [B, h, w, C] pooled over the image, [B, C]; in float32 where those are bfloat16."""
        return pool_by(self.head, features)

    def evidence(self, features: Array) -> Array:
        """Returns what speaks for each class where, [B, h, w, K], of `features` [B, h, w, C]."""
        return features @ self.classifier.kernel[...]


def with_head(
    network: nnx.Module,
    head: Head,
    *,
    classes: int,
    image_size: int,
    lowering: Lowering,
    generator: np.random.Generator,
) -> StagedNetwork:
    """Returns `network` with another head and a linear classifier, both drawn by `generator`; its layers keep their
    names.

    `image_size` is the side of images that the network can take; the channels of its last stage are found by it.
    Raises UserError for a plain module, which has no stages.
    """
    if not isinstance(network, StagedNetwork):
        raise UserError(
            f"{type(network).__name__} has no stages behind which it could be pooled otherwise: leave model.pooling "
            "and model.transition out, or make it a StagedNetwork, as docs/extending.md shows"
        )
    if TRANSITION in network.stage_names:
        raise UserError(f"{type(network).__name__} has a stage called {TRANSITION} already: set model.transition to 0")
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    channels = jax.eval_shape(network.features, image).shape[-1]
    # the class and not a wrapper: weights files, phases and rates by stage know the layers by the names that they have
    object.__setattr__(network, "__class__", _class_with_head(type(network)))
    network.head = head
    network.transition = Transition(channels, head.transition, lowering, generator) if head.transition else None
    network.classifier = Classifier(head.transition or channels, classes, generator)
    return network


@functools.cache
def _class_with_head(kind: type[StagedNetwork]) -> type[StagedNetwork]:
    """Returns the class of networks of this kind with a head: one for each kind, as equal structures are compared."""
    return type(f"{kind.__name__}WithHead", (_WithHead, kind), {"__module__": __name__})


def pool_by(head: Head, features: Array) -> Array:
    """Returns `features` [B, h, w, C] pooled over the image as `head` says, [B, C]; bfloat16 becomes float32."""
    if head.pooling == "average":
        return pool(features)
    values = features.astype(accumulator_of(features))
    return jnp.max(values, (1, 2)) if head.pooling == "max" else log_sum_exp(values, head.sharpness)


def log_sum_exp(values: Array, sharpness: float) -> Array:
    """Returns 1/r log(mean of exp(r x)) [B, C] over the image of `values` x [B, h, w, C], with r = `sharpness`.

    It is taken about the maximum, so that no exponential overflows (Wang et al. 2017, equation 2).
    """
    highest = lax.stop_gradient(jnp.max(values, (1, 2), keepdims=True))
    mean = jnp.mean(jnp.exp(sharpness * (values - highest)), (1, 2))
    return jnp.squeeze(highest, (1, 2)) + jnp.log(mean) / sharpness
