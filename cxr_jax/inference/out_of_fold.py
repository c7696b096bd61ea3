"""The predictions on all of train, each by the network of the fold that held the image out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import load_split
from cxr_jax.inference.predictions import predict_split
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import Predictions


@dataclass(frozen=True)
class FoldPredictions:
    """What the network of one fold says of the images that were held out from it."""

    predictions: Predictions | ClassProbabilities
    checkpoint_sha256: str  # of the network


def predict_held_out(
    runs: Sequence[RunFolder], prepared: PreparedData, track: Track = silently
) -> list[FoldPredictions]:
    """Returns the predictions of the network of each fold; `runs` are those of all folds, which are validated on them.

    Raises:
        UserError: a run has no intact checkpoint, or its images cannot be loaded.
    """
    found = []
    for number, run in enumerate(runs):
        config, trained = load_config(run.config), restore_run(run)
        images = load_split(prepared, config.data, "val", track=track)
        table = predict_split(
            trained,
            images,
            "val",
            batch_size=config.training.evaluation_batch_size,
            track=track,
            by=f" of fold {number} by its network",
        )
        found.append(FoldPredictions(table, trained.checkpoint_sha256))
    return found
