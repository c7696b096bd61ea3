"""Probabilities and calls for files: one result for each file, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cxr_jax.data.quality.reference import QualityReference
from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import calls_of
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.predictions import probability_of
from cxr_jax.serving.radiograph import Radiograph, read_bytes, read_radiograph
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, NORMAL, PNEUMONIA

BATCH_SIZE = 64
"""Files that are decoded and run through the network together."""


@dataclass(frozen=True)
class Threshold:
    """The probability from which PNEUMONIA is called, and how it came about."""

    value: float
    rule: str  # one of `evaluation.operating_point.RULES`, "given by the user", or "not chosen"

    @classmethod
    def of(cls, model: TrainedModel, given: float | None = None) -> Threshold:
        """Return the threshold given by the user, else that of the run, else 0.5, which nobody chose.

        Raises:
            UserError: the given one is not from 0 to 1.
        """
        if given is not None:
            if not 0 <= given <= 1:
                raise UserError(f"the threshold is {given}, but must be a probability from 0 to 1")
            return cls(given, "given by the user")
        if model.threshold is not None:
            return cls(model.threshold, model.threshold_rule or "unknown")
        return cls(0.5, "not chosen: evaluate the run to choose one on validation")


@dataclass(frozen=True)
class FilePrediction:
    """What became of one file: a probability and a call, or the sentence that says why there is none."""

    file: str
    probability: float | None = None  # of PNEUMONIA
    label: str | None = None  # the call, one of CLASS_NAMES
    warnings: tuple[str, ...] = ()
    compared: bool = False  # with the run's training images, so that no warning means that it is like them
    error: str | None = None

    def as_json(self, threshold: Threshold, model: str) -> dict[str, Any]:
        """Return the object that `predict --json` prints for the file; `error` is there only where there is one."""
        value = {
            "file": self.file,
            "probability": self.probability,
            "label": self.label,
            "threshold": threshold.value,
            "threshold_rule": threshold.rule,
            "warnings": list(self.warnings),
            "compared_with_training": self.compared,
            "model": model,
            "disclaimer": DISCLAIMER,
        }
        return value if self.error is None else {**value, "error": self.error}


def predict_files(
    model: TrainedModel,
    files: Iterable[str],
    threshold: Threshold,
    *,
    reference: QualityReference | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[FilePrediction]:
    """Yield the prediction of every file in the given order; `batch_size` files are in memory at a time.

    A file that cannot be read or decoded yields its error, and the others are predicted. Images that are unlike the
    training images in `reference` are predicted with a warning.
    """
    remaining = iter(files)
    while batch := list(islice(remaining, batch_size)):
        yield from _predict_batch(model, batch, threshold, reference)


def _predict_batch(
    model: TrainedModel, files: list[str], threshold: Threshold, reference: QualityReference | None
) -> list[FilePrediction]:
    outcomes = [_read(file, model, reference) for file in files]
    squares = [outcome.square for outcome in outcomes if isinstance(outcome, Radiograph)]
    probabilities = iter(probability_of(model.logits(np.stack(squares))) if squares else ())
    return [
        _prediction(file, outcome, next(probabilities), threshold, compared=reference is not None)
        if isinstance(outcome, Radiograph)
        else FilePrediction(file, error=outcome)
        for file, outcome in zip(files, outcomes, strict=True)
    ]


def _read(file: str, model: TrainedModel, reference: QualityReference | None) -> Radiograph | str:
    """Return the radiograph in a file, or the sentence that says why there is none."""
    try:
        return read_radiograph(read_bytes(Path(file)), file, model.description, reference)
    except UserError as error:
        return str(error)


def _prediction(
    file: str, radiograph: Radiograph, probability: float, threshold: Threshold, *, compared: bool
) -> FilePrediction:
    called = CLASS_NAMES[PNEUMONIA if calls_of(np.asarray(probability), threshold.value) else NORMAL]
    return FilePrediction(file, float(probability), called, radiograph.warnings, compared)
