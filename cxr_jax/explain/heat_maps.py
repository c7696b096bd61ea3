"""Heat maps of a trained run for images as they come from decoding."""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.explain.grad_cam import GradCam, grad_cam, require_stage
from cxr_jax.images.batches import padded_batches
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.network import stage_names_of
from cxr_jax.models.state import ArrayDict, merge_model
from cxr_jax.preprocessing.normalise import normalise

BATCH_SIZE = 16
"""Images that are explained by one call of the compiled program."""


class HeatMaps(NamedTuple):
    """Grad-CAM of N images."""

    heat: np.ndarray  # float32 [N, h, w] in 0..1
    blank: np.ndarray  # bool [N], True where nothing speaks for the class and the map is 0


def heat_maps(
    trained: TrainedModel, images: np.ndarray, classes: np.ndarray, stage: str, *, batch_size: int = BATCH_SIZE
) -> HeatMaps:
    """Returns Grad-CAM of `images`, uint8 `[N, S, S]`, at `stage`, each for its class of `classes`, int `[N]`.

    One call of one compiled program for every `batch_size` images, the last batch padded. The parameters are arguments
    of the program, so that the same network with other ones is explained without compiling again.

    Raises:
        UserError: the network has no such stage.
    """
    require_stage(stage_names_of(trained.model()), stage)
    batch_size = min(batch_size, len(images))
    heat, blank = [], []
    for start, (batch, count) in enumerate(padded_batches(images, batch_size)):
        wanted = np.resize(classes[start * batch_size :][:count], batch_size).astype(np.int32)
        found = _explain_batch(
            trained.graphdef, trained.params, trained.batch_stats, batch, wanted, stage, trained.mean, trained.std
        )
        heat.append(np.asarray(found.heat)[:count])
        blank.append(np.asarray(found.blank)[:count])
    return HeatMaps(np.concatenate(heat), np.concatenate(blank))


@functools.partial(jax.jit, static_argnames=("graphdef", "stage", "mean", "std"))
def _explain_batch(
    graphdef: nnx.GraphDef,
    params: ArrayDict,
    batch_stats: ArrayDict,
    images: Array,
    classes: Array,
    stage: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> GradCam:
    """Returns Grad-CAM of uint8 images [B, S, S] for a model taken apart."""
    model = merge_model(graphdef, params, batch_stats)
    return grad_cam(model, normalise(jnp.asarray(images), mean, std), classes, stage)


def enlarged(heat: np.ndarray, side: int) -> np.ndarray:
    """Returns maps [N, h, w] stretched to float32 [N, side, side], bilinear between the centres of the cells.

    This is how they are laid over an image, see `overlay.place_on_original`.
    """
    return np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_LINEAR) for one in heat.astype(np.float32)])
