"""Predictions of a trained network on the images of a split, each batch changed before the network sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cxr_jax.evaluation.robustness import Level, class_levels_of
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.kept_answers import Answers
from cxr_jax.inference.predictions import predictions_of
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.predictions import Predictions

Change = Callable[[np.ndarray, slice], np.ndarray]
"""Makes of a batch of images, uint8 [B, S, S], and its place in the split what the network sees, uint8 [B, S, S]."""


def answers_on_changed(
    model: TrainedModel,
    images: ImageSet,
    change: Change,
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Answers:
    """Returns what the network answers on the changed images.

    Args:
        model: the network.
        images: a split.
        change: is called batch by batch.
        batch_size: of the forward pass.
        advance: is told how many more images are done.
    """
    logits, distances = [], []
    size = min(batch_size, len(images))
    for start in range(0, len(images), size):
        chosen = slice(start, start + size)
        batch = change(np.asarray(images.images[chosen]), chosen)
        count = len(batch)
        # every batch has one size, so that one program serves all
        batch = np.concatenate([batch, np.zeros((size - count, *batch.shape[1:]), np.uint8)])
        if model.feature_limit is None:
            logits.append(model.logits(batch, batch_size=size)[:count])
        else:
            found, far = model.logits_and_distances(batch)
            logits.append(found[:count])
            distances.append(far[:count])
        advance(count)
    return Answers(np.concatenate(logits), np.concatenate(distances) if distances else None)


def beyond_limit(model: TrainedModel, answers: Answers) -> np.ndarray | None:
    """Returns which images are beyond the limit of the network's features, bool [N]; None where none is known."""
    if answers.distances is None or model.feature_limit is None:
        return None
    return answers.distances > model.feature_limit.distance


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

    `split` is the name of the split; the rest is as in `answers_on_changed`, and the second value as of `beyond_limit`.
    """
    answers = answers_on_changed(model, images, change, batch_size=batch_size, advance=advance)
    return predictions_of(answers.logits, images, split), beyond_limit(model, answers)


def measure_changed(
    model: TrainedModel,
    images: ImageSet,
    split: str,
    variant: tuple[str, int],
    answers: Answers,
    thresholds: float | Mapping[str, float],
) -> tuple[Predictions | ClassProbabilities, dict[str, Level]]:
    """Returns predictions on changed images by `answers`, and what they are worth, of all classes together and of each.

    `variant` is what the level calls the change, its kind and severity; `thresholds` are as in `class_rates_of`.
    """
    predictions, far = predictions_of(answers.logits, images, split), beyond_limit(model, answers)
    rule = model.sets.rule() if model.sets else None
    return predictions, class_levels_of(*variant, predictions, thresholds, rule, far)
