"""A network that was trained on whole images, shown regions of them alone, beside the images as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import load_split, masks_of_split
from cxr_jax.errors import UserError
from cxr_jax.evaluation.occlusion import Occlusion, shown, write_occlusion
from cxr_jax.evaluation.robustness import Level
from cxr_jax.images.image_set import ImageSet
from cxr_jax.images.regions import REGIONS, WHOLE, show_region
from cxr_jax.inference.changed import measure_changed
from cxr_jax.inference.looks import record_changed_look
from cxr_jax.inference.restore import TrainedModel, restore_run
from cxr_jax.runs.description import require_uncropped, require_whole_images
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import Predictions
from cxr_jax.terminal import as_typed
from cxr_jax.vocabulary import CLASS_NAMES

WANTED = "--occluded"
"""What needs the masks, for errors."""


def evaluate_occluded(run: RunFolder, *, on_test: bool, track: Track = silently) -> Occlusion:
    """Shows a run every region of its validation images, or of test, which is one look more, and stores the record.

    Images without a lung mask are left out, of the whole images too.

    Args:
        run: an evaluated one that was trained on whole images.
        on_test: whether the test images are shown.
        track: shows the progress.

    Raises:
        UserError: the run is an ensemble, was not evaluated or was trained on a region; its data cannot be read, or
            have no masks.
    """
    split: Literal["val", "test"] = "test" if on_test else "val"
    config, prepared = load_config(run.config), open_data_of_run(run)
    if prepared.classes != CLASS_NAMES:
        raise UserError(f"{WANTED} is for {' and '.join(CLASS_NAMES)} alone so far, and {run.path} has other classes")
    if not run.operating_point.is_file():
        raise UserError(
            f"{run.path} has no threshold yet, at which regions could be called: "
            f"{as_typed('cxr-jax', 'evaluate', run.path)} fixes it"
        )
    trained = restore_run(run)
    require_whole_images(trained.descriptions, f"cxr-jax evaluate {WANTED}")
    require_uncropped(trained.descriptions, f"cxr-jax evaluate {WANTED}")
    record = prepared.require_masks(WANTED)
    images = load_split(prepared, config.data, split, track=track)
    masks = masks_of_split(prepared, config.data, split, WANTED, track=track) > 0
    kept = np.flatnonzero(masks.any(axis=(1, 2)))
    if not len(kept):
        raise UserError(f"no image of {split} in {prepared.path} has a lung mask, which {WANTED} needs")
    without = len(images) - len(kept)
    images, masks = images.select(kept), masks[kept]
    with track(f"Predicting regions of {split}", len(images) * (1 + len(REGIONS))) as advance:
        found = {
            region: _on_region(trained, images, masks, split, region, config.training.evaluation_batch_size, advance)
            for region in (WHOLE, *REGIONS)
        }
    whole, whole_level = found[WHOLE]
    occlusion = Occlusion(
        split=split,
        images=len(images),
        without_mask=without,
        threshold=trained.threshold,
        checkpoint_sha256=trained.checkpoint_sha256,
        masks=record.fingerprint,
        whole=whole_level,
        regions=tuple(
            shown(level, whole, predictions, trained.threshold)
            for predictions, level in (found[region] for region in REGIONS)
        ),
    )
    if on_test:
        # before anything of test can be seen, so that no look goes uncounted
        record_changed_look(run, config, prepared, trained, "occluded", whole_level, trained.threshold)
    write_occlusion(run.occlusion_of(split), occlusion)
    return occlusion


def _on_region(
    model: TrainedModel,
    images: ImageSet,
    masks: np.ndarray,
    split: str,
    region: str,
    batch_size: int,
    advance: Callable[[int], None],
) -> tuple[Predictions, Level]:
    """Returns predictions on one region, and what they are worth at the network's threshold."""

    def change(batch: np.ndarray, chosen: slice) -> np.ndarray:
        return show_region(batch, masks[chosen], region)

    return measure_changed(model, images, split, (region, 0), change, batch_size=batch_size, advance=advance)
