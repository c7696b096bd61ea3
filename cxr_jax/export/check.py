"""A bundle held to the run that it came from, on real images, in every runtime that is installed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from cxr_jax.bundle.record import INT8_FILE, ONNX_FILE, Quantisation, Rounding, RuntimeCheck
from cxr_jax.bundle.runtime import in_batches
from cxr_jax.data.progress import Track, silently
from cxr_jax.evaluation.cases import Cases, calls_of
from cxr_jax.evaluation.metrics import roc_auc
from cxr_jax.export.runtimes import installed_runtimes, run_in
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.ensemble import Ensemble
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.predictions import probability_of

BATCH_SIZES = (1, 7)
"""One image alone, and a batch of a size that no program was made for."""


def check_runtimes(
    folder: Path, expected: np.ndarray, images: np.ndarray, *, track: Track = silently
) -> tuple[RuntimeCheck, ...]:
    """Returns how far the probabilities of a bundle are from the run's, for every runtime and size of batch.

    Args:
        folder: of the bundle.
        expected: the run's probabilities of PNEUMONIA, [N].
        images: the same images, uint8 [N, S, S] in 0..255.
        track: shows the progress.
    """
    found = []
    for runtime in installed_runtimes():
        network = run_in(runtime, folder / ONNX_FILE)
        for size in BATCH_SIZES:
            with track(f"{network.runtime}, batches of {size}", len(images)) as advance:
                logits = in_batches(network.logits, images, size, advance)
            difference = float(np.abs(probability_of(logits) - expected).max())
            found.append(RuntimeCheck(network.runtime, size, len(images), difference))
    return tuple(found)


def loss_in_8_bits(
    folder: Path,
    validation: ImageSet,
    expected: np.ndarray,
    threshold: float | None,
    *,
    calibrated: int,
    track: Track = silently,
) -> Quantisation:
    """Returns what the network in 8 bits loses on validation, run by onnxruntime.

    Args:
        folder: of the bundle.
        validation: its images, [N].
        expected: the run's probabilities of PNEUMONIA on them, [N].
        threshold: from which PNEUMONIA is called; None if none was fixed.
        calibrated: training images from which the ranges of activations were taken.
        track: shows the progress.
    """
    loss = loss_by_rounding(folder / INT8_FILE, validation, expected, threshold, track=track)
    return Quantisation(**dataclasses.asdict(loss), calibration_images=calibrated)


def loss_by_rounding(
    model: Path, validation: ImageSet, expected: np.ndarray, threshold: float | None, *, track: Track = silently
) -> Rounding:
    """Returns what the ONNX file `model`, a network in fewer bits, loses on validation; else as `loss_in_8_bits`."""
    network = run_in("onnxruntime", model)
    with track(f"{network.runtime}, {model.name}", len(validation)) as advance:
        found = probability_of(in_batches(network.logits, validation.images, BATCH_SIZES[-1], advance))
    auc, auc_float32 = (float(roc_auc(Cases.unweighted(validation.labels, each))[0]) for each in (found, expected))
    other = None if threshold is None else int(np.sum(calls_of(found, threshold) != calls_of(expected, threshold)))
    return Rounding(len(validation), auc, auc_float32, float(np.abs(found - expected).max()), other)


def probabilities_of_run(model: TrainedModel | Ensemble, images: np.ndarray, *, track: Track = silently) -> np.ndarray:
    """Returns what the run says of images [N, S, S] uint8 in 0..255: probabilities of PNEUMONIA, [N]."""
    members = model.members if isinstance(model, Ensemble) else (model,)
    logits = []
    for number, member in enumerate(members, start=1):
        by = f" by network {number} of {len(members)}" if len(members) > 1 else ""
        with track(f"Predicting validation{by}", len(images)) as advance:
            logits.append(member.logits(images, advance=advance))
    return probability_of(np.mean(logits, axis=0, dtype=np.float64))
