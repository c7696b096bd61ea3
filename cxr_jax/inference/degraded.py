"""A trained network on degraded images: every kind at every severity, beside the images as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import UserError
from cxr_jax.evaluation.robustness import (
    Level,
    Robustness,
    mean_corruption_error,
    mean_error,
    read_robustness,
    write_robustness,
)
from cxr_jax.images.degraded import KINDS, SEVERITIES, degrade
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.changed import measure_changed
from cxr_jax.inference.looks import record_changed_look
from cxr_jax.inference.restore import TrainedModel, restore_run
from cxr_jax.runs.description import require_unclarified
from cxr_jax.runs.folder import RunFolder
from cxr_jax.terminal import as_typed
from cxr_jax.vocabulary import CLASS_NAMES

SEED = 0
"""Of the degradations."""

CLEAN = "clean"
"""What images are called that are left as they are."""


def evaluate_degraded(run: RunFolder, *, on_test: bool, reference: str = "", track: Track = silently) -> Robustness:
    """Measures a run on its degraded validation images, or on test, which is one look more, and stores the record.

    Args:
        run: an evaluated one.
        on_test: whether the test images are degraded.
        reference: folder of the run that errors are told relative to; empty without one.
        track: shows the progress.

    Raises:
        UserError: the run is an ensemble or was not evaluated, its data or the reference cannot be read, or these are
            of other images.
    """
    split: Literal["val", "test"] = "test" if on_test else "val"
    config, prepared = load_config(run.config), open_data_of_run(run)
    if prepared.classes != CLASS_NAMES:
        raise UserError(f"--degraded is for {' and '.join(CLASS_NAMES)} alone so far, and {run.path} has other classes")
    if not run.operating_point.is_file():
        raise UserError(
            f"{run.path} has no threshold yet, at which degraded images could be called: "
            f"{as_typed('cxr-jax', 'evaluate', run.path)} fixes it"
        )
    compared = None
    if reference:
        other = RunFolder.open(reference)
        compared = (other.name, read_robustness(other.robustness_of(split)))
    trained = restore_run(run)
    require_unclarified(trained.descriptions, "--degraded, which degrades images as the network sees them,")
    images = load_split(prepared, config.data, split, track=track)
    batch_size = config.training.evaluation_batch_size
    robustness = measure_robustness(trained, images, split, reference=compared, batch_size=batch_size, track=track)
    if on_test:
        # before anything of test can be seen, so that no look goes uncounted
        record_changed_look(run, config, prepared, trained, "degraded", robustness.clean, robustness.threshold)
    write_robustness(run.robustness_of(split), robustness)
    return robustness


def measure_robustness(
    model: TrainedModel,
    images: ImageSet,
    split: Literal["val", "test"],
    *,
    reference: tuple[str, Robustness] | None = None,
    batch_size: int = 64,
    track: Track = silently,
) -> Robustness:
    """Returns what a network is worth on the images of a split degraded in every way, at its fixed threshold.

    Args:
        model: the network of an evaluated run.
        images: the split.
        split: its name.
        reference: name and record of the run that errors are told relative to.
        batch_size: of the forward pass.
        track: shows the progress, in images.

    Raises:
        UserError: the run has no threshold, or the reference is of other images or degradations.
    """
    if model.threshold is None:
        raise UserError("the network has no threshold yet: evaluate the run without --degraded first")
    if reference is not None:
        _require_alike(*reference, split, len(images))
    variants = [(CLEAN, 0), *((kind, severity) for kind in KINDS for severity in SEVERITIES)]
    with track(f"Predicting {split} degraded", len(images) * len(variants)) as advance:
        clean, *levels = (_level(model, images, split, *variant, batch_size, advance) for variant in variants)
    return Robustness(
        split=split,
        images=len(images),
        threshold=model.threshold,
        seed=SEED,
        checkpoint_sha256=model.checkpoint_sha256,
        clean=clean,
        levels=tuple(levels),
        mean_error=mean_error(levels),
        reference=reference[0] if reference else "",
        mean_corruption_error=mean_corruption_error(levels, reference[1]) if reference else None,
    )


def _require_alike(name: str, reference: Robustness, split: str, images: int) -> None:
    alike = (reference.split, reference.images, reference.seed, reference.kinds) == (split, images, SEED, KINDS)
    if not alike:
        raise UserError(
            f"{name} was measured on {reference.images:,} degraded images of {reference.split}, and this on {images:,} "
            f"of {split}, or in other ways: measure both alike"
        )


def _level(
    model: TrainedModel,
    images: ImageSet,
    split: str,
    kind: str,
    severity: int,
    batch_size: int,
    advance: Callable[[int], None],
) -> Level:
    """Returns what the network is worth on the images of one kind and severity; these are made batch by batch."""

    def change(batch: np.ndarray, chosen: slice) -> np.ndarray:
        return degrade(batch, kind, severity, images.ids[chosen], seed=SEED) if severity else batch

    variant = kind, severity
    return measure_changed(model, images, split, variant, change, batch_size=batch_size, advance=advance)[1]
