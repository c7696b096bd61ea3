"""Grad-CAM (Selvaraju et al. 2017): a stage's channels, weighted by the gradient of a class's logit."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from cxr_jax.errors import UserError
from cxr_jax.models.network import StagedNetwork, stage_names_of
from cxr_jax.models.state import ArrayDict, merge_model, split_model


class GradCam(NamedTuple):
    """Heat maps of B images on the grid of the stage that they were computed at."""

    heat: Float[Array, "B h w"]
    """float32 in 0..1, the highest value of every map 1; all 0 where the map is blank."""

    blank: Bool[Array, " B"]
    """True where nothing at this stage speaks for the class: the map is 0 everywhere before it is normalised."""


def grad_cam(
    model: StagedNetwork, images: Float[Array, "B H W 3"], class_index: int | Int[Array, " B"], stage: str
) -> GradCam:
    """Explains the logit of `class_index` by the activations at the end of `stage`, for a batch of normalised images.

    The map is ReLU(sum over channels of weight * activation), where a channel's weight is the mean over space of the
    logit's derivative by its activations; it is then divided by its highest value. Batch statistics are not used, so
    that images do not influence each other.

    Args:
        model: the network.
        images: normalised as the network was trained.
        class_index: index into `vocabulary.CLASS_NAMES`; one for all images, or one for each.
        stage: one of `model.stage_names`.

    Raises:
        UserError: the network has no such stage, or none at all.
    """
    require_stage(stage_names_of(model), stage)
    graphdef, params, batch_stats = split_model(model)
    classes = jnp.broadcast_to(jnp.asarray(class_index, jnp.int32), (images.shape[0],))
    return _grad_cam(graphdef, params, batch_stats, images, classes, stage)


def require_stage(stage_names: Sequence[str], stage: str) -> None:
    """Raises UserError, naming the stages that there are, if `stage` is none of them."""
    if stage not in stage_names:
        raise UserError(f"the network has no stage {stage!r}: choose one of {', '.join(stage_names)}")


@functools.partial(jax.jit, static_argnames=("graphdef", "stage"))
def _grad_cam(
    graphdef: nnx.GraphDef, params: ArrayDict, batch_stats: ArrayDict, images: Array, classes: Array, stage: str
) -> GradCam:
    """Returns `grad_cam` for a model taken apart."""
    activations = merge_model(graphdef, params, batch_stats).activations(images, stage)

    def class_logits(activations: Array) -> Array:
        logits = merge_model(graphdef, params, batch_stats).forward_from(stage, activations)
        # An image's logits depend on its own activations only: the gradient of the sum holds every image's gradient.
        return jnp.sum(jnp.take_along_axis(logits, classes[:, None], axis=1))

    gradients = jax.grad(class_logits)(activations)  # [B, h, w, C]
    weights = jnp.mean(gradients, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
    evidence = jax.nn.relu(jnp.sum(weights * activations, axis=-1)).astype(jnp.float32)  # [B, h, w]
    peak = jnp.max(evidence, axis=(1, 2), keepdims=True)
    blank = peak <= 0
    return GradCam(evidence / jnp.where(blank, 1.0, peak), blank[:, 0, 0])
