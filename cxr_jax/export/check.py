"""A bundle held to the run that it came from, on real images, in every runtime that is installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_jax.bundle.record import INT8_FILE, ONNX_FILE, Call, Quantisation, Rounding, RuntimeCheck
from cxr_jax.bundle.runtime import in_batches
from cxr_jax.data.progress import Track, silently
from cxr_jax.evaluation.cases import calls_of
from cxr_jax.export.runtimes import installed_runtimes, run_in
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.ensemble import Ensemble
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.runs.finding_predictions import sigmoid_of
from cxr_jax.runs.predictions import probability_of, softmax_of
from cxr_jax.training.validation import validation_figures
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS

BATCH_SIZES = (1, 7)
"""One image alone, and a batch of a size that no program was made for."""


@dataclass(frozen=True)
class Told:
    """What is told of logits: probabilities, and calls.

    Attributes:
        network: its classes and their kind.
        calls: from which probability classes are called.
    """

    network: NetworkDescription
    calls: Sequence[Call]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Returns the probabilities [N] of PNEUMONIA, or those [N, K] of other classes or findings."""
        if self.network.kind == FINDINGS:
            return sigmoid_of(logits)
        return probability_of(logits) if self.network.classes == CLASS_NAMES else softmax_of(logits)

    def called(self, probabilities: np.ndarray) -> np.ndarray | None:
        """Returns for each image what it is called, [N] or [N, K]; None where no threshold was fixed."""
        if self.network.kind != FINDINGS and self.network.classes != CLASS_NAMES:
            return np.argmax(probabilities, axis=1)
        if not self.calls:
            return None
        if self.network.kind != FINDINGS:
            return calls_of(probabilities, self.calls[0].threshold)
        thresholds = {call.label: call.threshold for call in self.calls}
        columns = zip(probabilities.T, self.network.classes, strict=True)
        return np.stack([calls_of(column, thresholds[name]) for column, name in columns], axis=1)


def check_runtimes(
    folder: Path, told: Told, expected: np.ndarray, images: np.ndarray, *, track: Track = silently
) -> tuple[RuntimeCheck, ...]:
    """Returns how far the probabilities of a bundle are from the run's, for every runtime and size of batch.

    Args:
        folder: of the bundle.
        told: what is told of logits.
        expected: the run's logits, [N, K].
        images: the same images, uint8 [N, S, S] in 0..255.
        track: shows the progress.
    """
    found = []
    for runtime in installed_runtimes():
        network = run_in(runtime, folder / ONNX_FILE)
        for size in BATCH_SIZES:
            with track(f"{network.runtime}, batches of {size}", len(images)) as advance:
                logits = in_batches(network.logits, images, size, advance)
            difference = float(np.abs(told.probabilities(logits) - told.probabilities(expected)).max())
            found.append(RuntimeCheck(network.runtime, size, len(images), difference))
    return tuple(found)


def loss_in_8_bits(
    folder: Path,
    validation: ImageSet,
    told: Told,
    expected: np.ndarray,
    *,
    calibrated: int,
    track: Track = silently,
) -> Quantisation:
    """Returns what the network in 8 bits loses on validation, run by onnxruntime.

    Args:
        folder: of the bundle.
        validation: its images, [N].
        told: what is told of logits.
        expected: the run's logits on them, [N, K].
        calibrated: training images from which the ranges of activations were taken.
        track: shows the progress.
    """
    loss = loss_by_rounding(folder / INT8_FILE, validation, told, expected, track=track)
    return Quantisation(**dataclasses.asdict(loss), calibration_images=calibrated)


def loss_by_rounding(
    model: Path, validation: ImageSet, told: Told, expected: np.ndarray, *, track: Track = silently
) -> Rounding:
    """Returns what the ONNX file `model`, a network in fewer bits, loses on validation; else as `loss_in_8_bits`."""
    network = run_in("onnxruntime", model)
    with track(f"{network.runtime}, {model.name}", len(validation)) as advance:
        logits = in_batches(network.logits, validation.images, BATCH_SIZES[-1], advance)
    auc, auc_float32 = (validation_figures(each, validation.labels)["roc_auc"] for each in (logits, expected))
    found, before = told.probabilities(logits), told.probabilities(expected)
    called, called_before = told.called(found), told.called(before)
    # an image with several findings is called otherwise if one of them is
    other = None if called is None else int(np.sum((called != called_before).reshape(len(called), -1).any(axis=1)))
    return Rounding(len(validation), auc, auc_float32, float(np.abs(found - before).max()), other)


def logits_of_run(model: TrainedModel | Ensemble, images: np.ndarray, *, track: Track = silently) -> np.ndarray:
    """Returns what the run says of images [N, S, S] uint8 in 0..255: logits [N, K], the mean over its networks."""
    members = model.members if isinstance(model, Ensemble) else (model,)
    logits = []
    for number, member in enumerate(members, start=1):
        by = f" by network {number} of {len(members)}" if len(members) > 1 else ""
        with track(f"Predicting validation{by}", len(images)) as advance:
            logits.append(member.logits(images, advance=advance))
    return np.mean(logits, axis=0, dtype=np.float64)
