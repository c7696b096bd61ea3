"""The predictions of a trained network on a split, as the table that everything else is judged from."""

from __future__ import annotations

from cxr_jax.data.progress import Track, silently
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.predictions import Predictions


def predict_split(
    trained: TrainedModel,
    images: ImageSet,
    split: str,
    *,
    batch_size: int = 64,
    track: Track = silently,
    by: str = "",
) -> Predictions:
    """Returns the predictions on `images`, row for row, which make up `split`; `by` is told beside the progress."""
    with track(f"Predicting {split}{by}", len(images)) as advance:
        logits = trained.logits(images.images, batch_size=batch_size, advance=advance)
    return Predictions.from_logits(
        logits,
        file=images.files,
        split=[split] * len(images),
        group=images.groups,
        subtype=images.subtypes,
        label=images.labels,
    )
