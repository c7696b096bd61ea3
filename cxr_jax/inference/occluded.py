"""A network that was trained on whole images, shown regions of them alone, beside the images as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import load_split, masks_of_split
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_points import read_thresholds
from cxr_jax.evaluation.occlusion import Occlusion, class_shown, shown, write_occlusion
from cxr_jax.evaluation.robustness import Level
from cxr_jax.images.image_set import ImageSet
from cxr_jax.images.regions import REGIONS, WHOLE, show_region
from cxr_jax.inference.changed import answers_on_changed, measure_changed
from cxr_jax.inference.looks import record_changed_look
from cxr_jax.inference.restore import TrainedModel, require_fixed, restore_run
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.description import require_uncropped, require_whole_images
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import Predictions

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
    trained = restore_run(run)
    require_fixed(run, trained, "regions")
    thresholds = read_thresholds(run.operating_point, prepared.classes)
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
    batch_size = config.training.evaluation_batch_size
    with track(f"Predicting regions of {split}", len(images) * (1 + len(REGIONS))) as advance:
        found = {
            region: _on_region(trained, images, masks, split, region, thresholds, batch_size, advance)
            for region in (WHOLE, *REGIONS)
        }
    whole, whole_levels = found[WHOLE]
    if isinstance(thresholds, float):
        regions = [{"": shown(levels[""], whole, table, thresholds)} for table, levels in (found[r] for r in REGIONS)]
    else:
        regions = [class_shown(levels, whole, table, thresholds) for table, levels in (found[r] for r in REGIONS)]

    def of(name: str, threshold: float | None) -> Occlusion:
        """Returns the record of one class, or under the empty name of all together."""
        return Occlusion(
            split=split,
            images=len(images),
            without_mask=without,
            threshold=threshold,
            checkpoint_sha256=trained.checkpoint_sha256,
            masks=record.fingerprint,
            whole=whole_levels[name],
            regions=tuple(region[name] for region in regions),
        )

    if isinstance(thresholds, float):
        occlusion = of("", thresholds)
    else:
        each = {name: of(name, value) for name, value in thresholds.items() if name in regions[0]}
        occlusion = dataclasses.replace(of("", None), classes=each)
    if on_test:
        # before anything of test can be seen, so that no look goes uncounted
        record_changed_look(run, config, prepared, trained, "occluded", whole_levels[""], thresholds)
    write_occlusion(run.occlusion_of(split), occlusion)
    return occlusion


def _on_region(
    model: TrainedModel,
    images: ImageSet,
    masks: np.ndarray,
    split: str,
    region: str,
    thresholds: float | Mapping[str, float],
    batch_size: int,
    advance: Callable[[int], None],
) -> tuple[Predictions | ClassProbabilities, dict[str, Level]]:
    """Returns predictions on one region, and what they are worth at the network's thresholds."""

    def change(batch: np.ndarray, chosen: slice) -> np.ndarray:
        return show_region(batch, masks[chosen], region)

    answers = answers_on_changed(model, images, change, batch_size=batch_size, advance=advance)
    return measure_changed(model, images, split, (region, 0), answers, thresholds)
