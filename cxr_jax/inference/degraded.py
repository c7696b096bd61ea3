"""A trained network on degraded images: every kind at every severity, beside the images as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from cxr_jax import __version__
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_points import read_thresholds
from cxr_jax.evaluation.robustness import (
    Level,
    Robustness,
    mean_corruption_error,
    mean_error,
    read_robustness,
    with_wrong_calls,
    write_robustness,
    wrongly_called,
)
from cxr_jax.images.degraded import KINDS, SEVERITIES, degrade
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.changed import Change, answers_on_changed, measure_changed
from cxr_jax.inference.kept_answers import KeptAnswers
from cxr_jax.inference.looks import record_changed_look
from cxr_jax.inference.restore import TrainedModel, require_fixed, restore_run
from cxr_jax.runs.description import require_unclarified
from cxr_jax.runs.folder import RunFolder
from cxr_jax.vocabulary import CLASS_NAMES

SEED = 0
"""Of the degradations."""

CLEAN = "clean"
"""What images are called that are left as they are."""


def evaluate_degraded(run: RunFolder, *, on_test: bool, reference: str = "", track: Track = silently) -> Robustness:
    """Measures a run on its degraded validation images, or on test, which is one look more, and stores the record.

    What the network has answered is kept until all is measured, so that an interrupted measurement goes on. Its look
    is in the ledger before any answer on test is kept.

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
    compared = None
    if reference:
        other = RunFolder.open(reference)
        compared = (other.name, read_robustness(other.robustness_of(split)))
    trained = restore_run(run)
    require_fixed(run, trained, "degraded images")
    thresholds = read_thresholds(run.operating_point, prepared.classes)
    require_unclarified(trained.descriptions, "--degraded, which degrades images as the network sees them,")
    images = load_split(prepared, config.data, split, track=track)
    batch_size = config.training.evaluation_batch_size

    def count_look(clean: Level) -> None:
        if on_test:
            record_changed_look(run, config, prepared, trained, "degraded", clean, thresholds)

    measured = f"{trained.checkpoint_sha256} {prepared.fingerprint} {split} {len(images)} {SEED} {__version__}"
    kept = KeptAnswers(run.robustness_of(split).with_suffix(".unfinished.npz"), measured)
    how = {"reference": compared, "batch_size": batch_size, "track": track}
    robustness = measure_robustness(trained, images, split, thresholds, kept, count_look, **how)
    write_robustness(run.robustness_of(split), robustness)
    kept.forget()
    return robustness


def measure_robustness(
    model: TrainedModel,
    images: ImageSet,
    split: Literal["val", "test"],
    thresholds: float | Mapping[str, float],
    kept: KeptAnswers,
    on_clean: Callable[[Level], None],
    *,
    reference: tuple[str, Robustness] | None = None,
    batch_size: int = 64,
    track: Track = silently,
) -> Robustness:
    """Returns what a network is worth on the images of a split degraded in every way, at its fixed thresholds.

    Args:
        model: the network of an evaluated run.
        images: the split.
        split: its name.
        thresholds: from which PNEUMONIA is called, or each of other classes and of findings.
        kept: what an interrupted measurement has answered already, and where answers are added.
        on_clean: is told what the network is worth on the images as they are, before the answers on them are kept.
        reference: name and record of the run that errors are told relative to.
        batch_size: of the forward pass.
        track: shows the progress, in images.

    Raises:
        UserError: the reference is of other images, classes or degradations.
    """
    if reference is not None:
        _require_alike(*reference, split, images.files, () if isinstance(thresholds, float) else tuple(thresholds))
    variants = [(CLEAN, 0), *((kind, severity) for kind in KINDS for severity in SEVERITIES)]
    with track(f"Predicting {split} degraded", len(images) * len(variants)) as advance:
        levels, wrong = [], []
        for variant in variants:
            kind, severity = variant
            name, change = f"{kind} {severity}", _change_of(kind, severity, images)
            known = kept.of(name)
            answers = known or answers_on_changed(model, images, change, batch_size=batch_size, advance=advance)
            predictions, level = measure_changed(model, images, split, variant, answers, thresholds)
            levels.append(level)
            wrong.append(wrongly_called(predictions, thresholds))
            if known:
                advance(len(images))
                continue
            if kind == CLEAN:
                on_clean(level[""])
            kept.add(name, answers)

    def of(name: str, threshold: float | None, compared: Robustness | None) -> Robustness:
        """Returns the record of one class, or under the empty name of all together."""
        clean, *degraded = (level[name] for level in levels)
        record = Robustness(
            split=split,
            images=len(images),
            threshold=threshold,
            seed=SEED,
            checkpoint_sha256=model.checkpoint_sha256,
            clean=clean,
            levels=tuple(degraded),
            mean_error=mean_error(degraded),
            reference=reference[0] if reference else "",
            mean_corruption_error=mean_corruption_error(degraded, compared) if compared else None,
        )
        if name not in wrong[0]:
            return record
        table = wrong[0][name][0]
        return with_wrong_calls(record, table, np.mean([calls[name][1] for calls in wrong[1:]], axis=0), compared)

    compared = reference[1] if reference else None
    if isinstance(thresholds, float):
        return of("", thresholds, compared)
    each = {name: of(name, value, compared.classes[name] if compared else None) for name, value in thresholds.items()}
    return dataclasses.replace(of("", None, compared), classes=each)


def _require_alike(
    name: str, reference: Robustness, split: str, files: Sequence[str], classes: tuple[str, ...]
) -> None:
    if tuple(reference.classes) != classes:
        raise UserError(
            f"{name} was measured on {', '.join(reference.classes or CLASS_NAMES)}, and this is of "
            f"{', '.join(classes or CLASS_NAMES)}: name a --reference of the same classes"
        )
    alike = (reference.split, reference.images, reference.seed, reference.kinds) == (split, len(files), SEED, KINDS)
    if not alike:
        raise UserError(
            f"{name} was measured on {reference.images:,} degraded images of {reference.split}, and this on "
            f"{len(files):,} of {split}, or in other ways: measure both alike"
        )
    # of findings, each has an answer for some of the images alone
    foreign = {file for record in (reference, *reference.classes.values()) for file in record.wrong} - set(files)
    if foreign:
        raise UserError(
            f"{name} was measured on other images of {split}, {min(foreign)} among them: name a --reference of the "
            "same data and the same cut of validation"
        )


def _change_of(kind: str, severity: int, images: ImageSet) -> Change:
    """Returns what degrades a batch of `images`; severity 0 leaves it as it is."""

    def change(batch: np.ndarray, chosen: slice) -> np.ndarray:
        return degrade(batch, kind, severity, images.ids[chosen], seed=SEED) if severity else batch

    return change
