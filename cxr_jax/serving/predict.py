"""Probabilities and calls for files: one result for each file, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cxr_jax.data.pool import map_in_order
from cxr_jax.data.quality.reference import QualityReference
from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import calls_of
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.runs.predictions import probability_of, softmax_of
from cxr_jax.serving.radiograph import Radiograph, read_bytes, read_radiograph
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, NORMAL, PNEUMONIA

HIGHEST = "the highest probability"
"""How a class is called where the classes are not NORMAL and PNEUMONIA."""

BATCH_SIZE = 16
"""Files that are run through the network together: few, so that the first results come early."""


class Predictor(Protocol):
    """What is given radiographs: a network restored from its run, several of them together, or an exported one."""

    @property
    def descriptions(self) -> tuple[NetworkDescription, ...]:
        """Of each network, with what is done to an image before it."""

    @property
    def threshold(self) -> float | None:
        """Probability from which PNEUMONIA is called; None before the run was evaluated, and of other classes."""

    @property
    def threshold_rule(self) -> str | None:
        """The rule that fixed the threshold."""

    def logits(self, images: Any) -> np.ndarray:
        """Returns logits [N, K] of `images` [N, S, S] uint8 in 0..255; of several networks, of one such array each."""


@dataclass(frozen=True)
class Threshold:
    """The probability from which PNEUMONIA is called, and how it came about."""

    value: float | None  # None where the classes are not NORMAL and PNEUMONIA: the highest probability is called
    rule: str  # one of `evaluation.operating_point.RULES`, "given by the user", "not chosen", or HIGHEST

    @classmethod
    def of(cls, model: Predictor, given: float | None = None) -> Threshold:
        """Returns the threshold given by the user, else that of the run, else 0.5, which nobody chose.

        Raises:
            UserError: the given one is not from 0 to 1, or the network has other classes than NORMAL and PNEUMONIA.
        """
        classes = model.descriptions[0].classes
        if classes != CLASS_NAMES and given is not None:
            raise UserError(f"a network of {', '.join(classes)} calls the class of {HIGHEST}: it takes no threshold")
        if classes != CLASS_NAMES:
            return cls(None, HIGHEST)
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
    probability: float | None = None  # of PNEUMONIA; of other classes, of the one that is called
    label: str | None = None  # the call, one of the classes
    warnings: tuple[str, ...] = ()
    compared: bool = False  # with the run's training images, so that no warning means that it is like them
    error: str | None = None
    radiograph: Radiograph | None = field(default=None, repr=False, compare=False)  # the decoded image
    probabilities: dict[str, float] | None = None  # of every class, where they are not NORMAL and PNEUMONIA

    def as_json(self, threshold: Threshold, model: str) -> dict[str, Any]:
        """Returns the object that `predict --json` prints for the file; `error` is there only where there is one."""
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
        if self.probabilities is not None:
            value["probabilities"] = self.probabilities
        return value if self.error is None else {**value, "error": self.error}


def content_of(file: str) -> bytes:
    """Returns the bytes of the file at a path; UserError as in `read_bytes`."""
    return read_bytes(Path(file))


def predict_files(
    model: Predictor,
    files: Sequence[str],
    threshold: Threshold,
    *,
    reference: QualityReference | None = None,
    batch_size: int = BATCH_SIZE,
    content: Callable[[str], bytes] = content_of,
) -> Iterator[FilePrediction]:
    """Yields the prediction of every file in the given order, as soon as its batch is known.

    Files are decoded in threads, a few ahead of the network. A file that cannot be read or decoded yields its error,
    and the others are predicted. Images that are unlike the training images in `reference` are predicted with a
    warning. `content` gives the bytes of each file, or raises UserError; by default `files` are paths.
    """
    size = min(batch_size, len(files))
    read = map_in_order(partial(_read, model=model, reference=reference, content=content), files)
    remaining = zip(files, read, strict=True)
    while batch := list(islice(remaining, size)):
        yield from _predict_batch(model, batch, size, threshold, compared=reference is not None)


def _predict_batch(
    model: Predictor,
    outcomes: list[tuple[str, Radiograph | str]],
    size: int,
    threshold: Threshold,
    *,
    compared: bool,
) -> list[FilePrediction]:
    """Returns what became of at most `size` files; every batch is padded to that, so that one program serves all."""
    squares = [outcome.squares for _, outcome in outcomes if isinstance(outcome, Radiograph)]
    probabilities, classes = iter(()), model.descriptions[0].classes
    if squares:
        # one array for each network
        padded = [
            np.stack([*each, *[np.zeros_like(each[0])] * (size - len(each))]) for each in zip(*squares, strict=True)
        ]
        logits = model.logits(padded if len(padded) > 1 else padded[0])
        told = probability_of if classes == CLASS_NAMES else softmax_of
        probabilities = iter(told(logits[: len(squares)]))
    return [
        prediction_of(file, outcome, next(probabilities), threshold, compared=compared, classes=classes)
        if isinstance(outcome, Radiograph)
        else FilePrediction(file, error=outcome)
        for file, outcome in outcomes
    ]


def _read(
    file: str, model: Predictor, reference: QualityReference | None, content: Callable[[str], bytes]
) -> Radiograph | str:
    """Returns the radiograph in a file, or the sentence that says why there is none."""
    try:
        return read_radiograph(content(file), file, model.descriptions, reference)
    except UserError as error:
        return str(error)


def prediction_of(
    file: str,
    radiograph: Radiograph,
    probability: float | np.ndarray,
    threshold: Threshold,
    *,
    compared: bool,
    classes: tuple[str, ...] = CLASS_NAMES,
) -> FilePrediction:
    """Returns what is told of a radiograph with this probability of PNEUMONIA, or these [K] of other `classes`.

    `compared` says whether its quality was held against that of the training images.
    """
    if classes != CLASS_NAMES:
        highest = int(np.argmax(probability))
        return FilePrediction(
            file,
            float(probability[highest]),
            classes[highest],
            radiograph.warnings,
            compared=compared,
            radiograph=radiograph,
            probabilities=dict(zip(classes, map(float, probability), strict=True)),
        )
    called = CLASS_NAMES[PNEUMONIA if calls_of(np.asarray(probability), threshold.value) else NORMAL]
    return FilePrediction(
        file, float(probability), called, radiograph.warnings, compared=compared, radiograph=radiograph
    )
