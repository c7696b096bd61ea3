"""Judging a network on the validation split while it is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.images.batches import WHOLE, Share
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.forward import ForwardProgram
from cxr_jax.models.state import ArrayDict
from cxr_jax.vocabulary import PNEUMONIA


class Validator:
    """The validation split with the program that judges it."""

    def __init__(self, compiled: Callable[[], ForwardProgram], image_set: ImageSet, share: Share = WHOLE) -> None:
        """Takes what gives the program, which is asked for at every validation."""
        self._compiled, self._image_set, self._share = compiled, image_set, share

    def figures(self, params: ArrayDict, batch_stats: ArrayDict, before_each: Callable[[], None]) -> dict[str, float]:
        """Returns loss (unweighted mean cross-entropy), accuracy and ROC-AUC (NaN with one class).

        `before_each` is called before every batch and may raise to leave the work.
        """
        images = self._image_set.images
        logits = self._compiled().over(params, batch_stats, images, before_each=before_each, share=self._share)
        return validation_figures(logits, self._image_set.labels)


def validation_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns loss, accuracy and ROC-AUC of `logits` [N, K] against `labels` [N], or those [N, K] of findings.

    Of two classes accuracy is that at a probability of 0.5. Of more, an image is called the class of its highest logit,
    and the ROC-AUC is the mean over the classes that occur, each against the rest. Of findings all are of the labels
    that are known: the mean binary cross-entropy, the accuracy at 0.5, and the mean ROC-AUC of those that are both
    present and absent.
    """
    logits = logits.astype(np.float64)
    if labels.ndim == 2:
        return _figures_of_findings(logits, labels)
    # a network that has run away shows in the loss; numpy's warnings would only clutter the terminal
    with np.errstate(invalid="ignore"):
        log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    loss = float(-np.mean(log_probabilities[np.arange(len(labels)), labels]))
    if logits.shape[1] > 2:
        accuracy = float(np.mean(np.argmax(logits, axis=1) == labels))
        return {"loss": loss, "accuracy": accuracy, "roc_auc": _mean_area(np.exp(log_probabilities), labels)}
    probability = np.exp(log_probabilities[:, PNEUMONIA])
    cases = Cases.unweighted(labels, probability, 0.5)
    auc = metric_value("roc_auc", cases)
    return {
        "loss": loss,
        "accuracy": float(metric_value("accuracy", cases)),
        "roc_auc": float("nan") if auc is None else auc,
    }


def _figures_of_findings(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns loss, accuracy and mean ROC-AUC of `logits` [N, K] against the known ones of `labels` [N, K]."""
    known = ~np.isnan(labels)
    truth = labels == 1
    with np.errstate(invalid="ignore"):
        losses = np.logaddexp(0.0, np.where(truth, -logits, logits))
    areas = []
    for index in range(labels.shape[1]):
        rows = known[:, index]
        if len(np.unique(truth[rows, index])) > 1:
            cases = Cases.unweighted(truth[rows, index].astype(int), logits[rows, index])
            areas.append(metric_value("roc_auc", cases))
    return {
        "loss": float(np.mean(losses[known])) if known.any() else float("nan"),
        "accuracy": float(np.mean(((logits > 0) == truth)[known])) if known.any() else float("nan"),
        "roc_auc": float(np.mean(areas)) if areas else float("nan"),
    }


def _mean_area(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean ROC-AUC of the classes that occur, each against the rest; NaN where one class alone occurs."""
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    ranked = (Cases.unweighted((labels == label).astype(int), probabilities[:, label]) for label in present)
    return float(np.mean([metric_value("roc_auc", cases) for cases in ranked]))
