"""Predictions of a trained network on the images of a split, each batch changed before the network sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cxr_jax.evaluation.robustness import Level, class_levels_of
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.predictions import predictions_of
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.predictions import Predictions

Change = Callable[[np.ndarray, slice], np.ndarray]
"""Makes of a batch of images, uint8 [B, S, S], and its place in the split what the network sees, uint8 [B, S, S]."""


def predict_changed(
    model: TrainedModel,
    images: ImageSet,
    split: str,
    change: Change,
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Predictions | ClassProbabilities, np.ndarray | None]:
    """Returns predictions on the changed images, and which of these are beyond the limit of the network's features.

    Args:
        model: the network.
        images: the split.
        split: its name.
        change: is called batch by batch.
        batch_size: of the forward pass.
        advance: is told how many more images are done.

    Returns:
        The predictions, and bool [N], None where the network tells no distance.
    """
    logits, unlike = [], []
    size, limit = min(batch_size, len(images)), model.feature_limit
    for start in range(0, len(images), size):
        chosen = slice(start, start + size)
        batch = change(np.asarray(images.images[chosen]), chosen)
        count = len(batch)
        # every batch has one size, so that one program serves all
        batch = np.concatenate([batch, np.zeros((size - count, *batch.shape[1:]), np.uint8)])
        if limit is None:
            logits.append(model.logits(batch, batch_size=size)[:count])
        else:
            found, distances = model.logits_and_distances(batch)
            logits.append(found[:count])
            unlike.append(distances[:count] > limit.distance)
        advance(count)
    predictions = predictions_of(np.concatenate(logits), images, split)
    return predictions, np.concatenate(unlike) if unlike else None


def measure_changed(
    model: TrainedModel,
    images: ImageSet,
    split: str,
    variant: tuple[str, int],
    change: Change,
    thresholds: float | Mapping[str, float],
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Predictions | ClassProbabilities, dict[str, Level]]:
    """Returns predictions on the changed images, and what they are worth, of all classes together and of each.

    `variant` is what the level calls the change, its kind and severity; `thresholds` are as in `class_rates_of`; the
    rest is as in `predict_changed`.
    """
    predictions, far = predict_changed(model, images, split, change, batch_size=batch_size, advance=advance)
    rule = model.sets.rule() if model.sets else None
    return predictions, class_levels_of(*variant, predictions, thresholds, rule, far)
