"""The predictions of a trained network on a split, as the table that everything else is judged from."""

from __future__ import annotations

import numpy as np

from cxr_jax.data.progress import Track, silently
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.class_predictions import ClassPredictions
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.finding_predictions import FindingPredictions
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import CLASS_NAMES


def predict_split(
    trained: TrainedModel,
    images: ImageSet,
    split: str,
    *,
    batch_size: int = 64,
    track: Track = silently,
    by: str = "",
) -> Predictions | ClassProbabilities:
    """Returns the predictions on `images`, row for row, which make up `split`; `by` is told beside the progress.

    They are `ClassPredictions` where the classes of the images are not NORMAL and PNEUMONIA, and `FindingPredictions`
    where the labels are of findings.
    """
    with track(f"Predicting {split}{by}", len(images)) as advance:
        logits = trained.logits(images.images, batch_size=batch_size, advance=advance)
    return predictions_of(logits, images, split)


def predictions_of(logits: np.ndarray, images: ImageSet, split: str) -> Predictions | ClassProbabilities:
    """Returns the predictions of logits [N, K] on the N images of a split, of the kind that `predict_split` says."""
    known = {"file": images.files, "split": [split] * len(images), "group": images.groups, "label": images.labels}
    if images.labels.ndim == 2:
        return FindingPredictions.from_logits(logits, **known, classes=images.classes)
    if images.classes != CLASS_NAMES:
        return ClassPredictions.from_logits(logits, **known, classes=images.classes)
    return Predictions.from_logits(logits, **known, subtype=images.subtypes)
