"""Heat maps of a trained run for images as they come from decoding."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cxr_jax.data.batches import padded_batches
from cxr_jax.explain.grad_cam import grad_cam
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.preprocessing.normalise import normalise


class HeatMaps(NamedTuple):
    """Grad-CAM of N images."""

    heat: np.ndarray  # float32 [N, h, w] in 0..1
    blank: np.ndarray  # bool [N], True where nothing speaks for the class and the map is 0


def heat_maps(
    trained: TrainedModel, images: np.ndarray, classes: np.ndarray, stage: str, *, batch_size: int = 16
) -> HeatMaps:
    """Return Grad-CAM of `images`, uint8 `[N, S, S]`, at `stage`, each for its class of `classes`, int `[N]`.

    Computed by padded batches of `batch_size`, so that one program serves any number of images.

    Raises:
        UserError: the network has no such stage.
    """
    model = trained.model()
    batch_size = min(batch_size, len(images))
    heat, blank = [], []
    for start, (batch, count) in enumerate(padded_batches(images, batch_size)):
        wanted = jnp.asarray(np.resize(classes[start * batch_size :][:count], batch_size), jnp.int32)
        found = grad_cam(model, normalise(jnp.asarray(batch), trained.mean, trained.std), wanted, stage)
        heat.append(np.asarray(found.heat)[:count])
        blank.append(np.asarray(found.blank)[:count])
    return HeatMaps(np.concatenate(heat), np.concatenate(blank))
