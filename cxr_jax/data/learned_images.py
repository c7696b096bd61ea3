"""Which images a network has learned from already: a new run may neither be validated nor tested on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cxr_jax.config.data import DataConfig
from cxr_jax.data.prepared import PreparedData, data_if_here
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import parts_of_split
from cxr_jax.errors import UserError
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.trained_on import learned_from


def images_learned_from(run: RunFolder, *, apart_from: Collection[str] = ()) -> frozenset[str]:
    """Returns the training and validation images of all data that a run's network learned from, by their sha256.

    Data that are not here any more tell none, and those with the fingerprints `apart_from` are left out.
    """
    told = [(name, fingerprint) for name, fingerprint in learned_from(run) if fingerprint not in apart_from]
    here = [data for name, fingerprint in told if (data := data_if_here(name, fingerprint)) is not None]
    return frozenset(example.sha256 for data in here for example in data.examples if example.split != "test")


def require_not_learned(
    runs: Sequence[RunFolder], prepared: PreparedData, config: DataConfig, *, track: Track = silently
) -> None:
    """Raises UserError if `runs` learned, in other data, from images that `config` cuts for test or validation.

    Images are told by their content. The very data that a run was trained on are left out here: their test images were
    not learned from, and their cut is held to by `training.continuation`.
    """
    if not runs:
        return
    validation = parts_of_split(prepared, config, "val", track=track)
    own = {data.fingerprint for data, _ in validation}
    validated = {data.examples[row].sha256 for data, rows in validation for row in rows}
    for run in runs:
        learned = images_learned_from(run, apart_from=own)
        for split, images in (("test", prepared.test_images), ("validation", validated)):
            if count := len(images & learned):
                raise UserError(
                    f"{run.path} has learned from {count:,} of the {split} images of {prepared.card['name']}: results "
                    "on them would be too good, so learn on from data without them, or train a new network"
                )
