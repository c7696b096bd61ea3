"""Judging a network on the validation split while it is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax import Array

from cxr_jax.data.batches import WHOLE, Share, padded_batches
from cxr_jax.data.image_set import ImageSet
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.models.state import ArrayDict
from cxr_jax.training.parallel import EvaluationFunction
from cxr_jax.vocabulary import PNEUMONIA


def in_batches(
    evaluate: EvaluationFunction,
    params: ArrayDict,
    batch_stats: ArrayDict,
    images: np.ndarray,
    batch_size: int,
    between: Callable[[], None],
    share: Share = WHOLE,
) -> np.ndarray:
    """What `evaluate` gives for all `images` [N, ...], by batches of `batch_size` of which the last is padded.

    `between` is called before every batch and may raise to leave the work. Of every batch this process reads `share`.
    """
    parts: list[np.ndarray] = []
    running: tuple[Array, int] | None = None
    for batch, count in padded_batches(images, batch_size, share=share):
        between()
        following = (evaluate(params, batch_stats, batch), count)
        # one batch ahead keeps the devices busy, and no more: the work can then be left within two batches
        if running is not None:
            parts.append(_rows(*running))
        running = following
    return np.concatenate([*parts, _rows(*running)])


def _rows(values: Array, count: int) -> np.ndarray:
    return np.asarray(values)[:count]


class Validator:
    """The validation split with the compiled step that judges it."""

    def __init__(
        self, evaluate: EvaluationFunction, image_set: ImageSet, batch_size: int, share: Share = WHOLE
    ) -> None:
        self._evaluate, self._image_set, self._batch_size, self._share = evaluate, image_set, batch_size, share

    def figures(self, params: ArrayDict, batch_stats: ArrayDict, between: Callable[[], None]) -> dict[str, float]:
        """Loss (unweighted mean cross-entropy), accuracy at probability 0.5, and ROC-AUC (NaN with one class).

        `between` is called before every batch and may raise to leave the work.
        """
        logits = in_batches(
            self._evaluate, params, batch_stats, self._image_set.images, self._batch_size, between, self._share
        )
        return validation_figures(logits, self._image_set.labels)


def validation_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Loss, accuracy and ROC-AUC of `logits` [N, 2] against `labels` [N]."""
    logits = logits.astype(np.float64)
    # a network that has run away shows in the loss; numpy's warnings would only clutter the terminal
    with np.errstate(invalid="ignore"):
        log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    probability = np.exp(log_probabilities[:, PNEUMONIA])
    cases = Cases.unweighted(labels, probability, 0.5)
    auc = metric_value("roc_auc", cases)
    return {
        "loss": float(-np.mean(log_probabilities[np.arange(len(labels)), labels])),
        "accuracy": float(metric_value("accuracy", cases)),
        "roc_auc": float("nan") if auc is None else auc,
    }
