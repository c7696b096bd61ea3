"""Probabilities and calls for files: one result for each file, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cxr_jax.data.findings import BETWEEN
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.quality.reference import QualityReference
from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import calls_of
from cxr_jax.evaluation.conformal import ERROR_RATE, ConformalSets, SetRule
from cxr_jax.evaluation.feature_distance import FeatureLimit
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.runs.finding_predictions import sigmoid_of
from cxr_jax.runs.predictions import probability_of, softmax_of
from cxr_jax.serving.radiograph import Radiograph, read_bytes, read_radiograph
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, FINDINGS, NO_FINDING, NORMAL, PNEUMONIA

HIGHEST = "the highest probability"
"""How a class is called where the classes are not NORMAL and PNEUMONIA."""

NOT_CHOSEN = "not chosen: evaluate the run to choose one on validation"

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

    @property
    def thresholds(self) -> Mapping[str, float] | None:
        """From which probability each finding is called; None before the run was evaluated, and of other classes."""

    @property
    def sets(self) -> ConformalSets | None:
        """From which probability on a class is possible; None before the run was evaluated."""

    @property
    def feature_limit(self) -> FeatureLimit | None:
        """From which distance on an image is unlike the training images; None where the network tells no distance."""

    def logits(self, images: Any) -> np.ndarray:
        """Returns logits [N, K] of `images` [N, S, S] uint8 in 0..255; of several networks, of one such array each."""

    def logits_and_distances(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits [N, K] and distances [N] of `images` [N, S, S], where there is a limit for these."""


@dataclass(frozen=True)
class Threshold:
    """The probability from which PNEUMONIA is called, and how it came about."""

    value: float | None  # None where the classes are not NORMAL and PNEUMONIA: the highest probability is called
    rule: str  # one of `evaluation.operating_point.RULES`, "given by the user", "not chosen", or HIGHEST
    sets: SetRule | None = None  # which classes are possible; None where no bounds were fixed on validation
    of_findings: Mapping[str, float] | None = None  # from which each finding is called; None of other classes

    @classmethod
    def of(cls, model: Predictor, given: float | None = None, error_rate: float | None = None) -> Threshold:
        """Returns the threshold given by the user, else that of the run, else 0.5, which nobody chose.

        With it comes which classes are possible at an error rate, by default `conformal.ERROR_RATE`. Each finding of a
        network that tells several has a threshold of its own; one that is given counts for all.

        Raises:
            UserError: the given one is not from 0 to 1, or no bounds were fixed for the error rate; or the network has
                other classes than NORMAL and PNEUMONIA, and either is given.
        """
        classes = model.descriptions[0].classes
        if given is not None and not 0 <= given <= 1:
            raise UserError(f"the threshold is {given}, but must be a probability from 0 to 1")
        if model.descriptions[0].kind == FINDINGS:
            return cls._of_findings(model, classes, given, error_rate)
        if classes != CLASS_NAMES and given is not None:
            raise UserError(f"a network of {', '.join(classes)} calls the class of {HIGHEST}: it takes no threshold")
        if classes != CLASS_NAMES and error_rate is not None:
            raise UserError(f"a network of {', '.join(classes)} has no bounds for an error rate: leave it out")
        if classes != CLASS_NAMES:
            return cls(None, HIGHEST)
        sets = _set_rule(model, error_rate)
        if given is not None:
            return cls(given, "given by the user", sets)
        if model.threshold is not None:
            return cls(model.threshold, model.threshold_rule or "unknown", sets)
        return cls(0.5, NOT_CHOSEN, sets)

    @classmethod
    def _of_findings(
        cls, model: Predictor, classes: tuple[str, ...], given: float | None, error_rate: float | None
    ) -> Threshold:
        """Returns the thresholds of findings; UserError as in `of`."""
        if error_rate is not None:
            raise UserError("a network of findings has no bounds for an error rate: leave it out")
        if given is not None:
            return cls(None, "given by the user", of_findings=dict.fromkeys(classes, given))
        if model.thresholds is not None:
            return cls(None, model.threshold_rule or "unknown", of_findings=model.thresholds)
        return cls(None, NOT_CHOSEN, of_findings=dict.fromkeys(classes, 0.5))

    def in_words(self) -> str:
        """Returns how calls are made, such as `PNEUMONIA from 0.4000 (rule: youden)`."""
        if self.of_findings is not None:
            each = ", ".join(f"{name} from {value:.4g}" for name, value in self.of_findings.items())
            return f"{each} (rule: {self.rule})"
        if self.value is None:
            return f"the class of {self.rule}"
        return f"{CLASS_NAMES[PNEUMONIA]} from {self.value:.4f} (rule: {self.rule})"


def _set_rule(model: Predictor, error_rate: float | None) -> SetRule | None:
    """Returns which classes are possible at an error rate; None where the network has no bounds and none is asked for.

    Raises:
        UserError: there are no bounds for it.
    """
    if model.sets is not None:
        return model.sets.rule(ERROR_RATE if error_rate is None else error_rate)
    if error_rate is not None:
        raise UserError(
            "no bounds for an error rate were fixed for this network: evaluate the run (--stored will do where it was "
            "evaluated before), and export it again where it is an exported one"
        )
    return None


@dataclass(frozen=True)
class FilePrediction:
    """What became of one file: a probability and a call, or the sentence that says why there is none."""

    file: str
    probability: float | None = None  # of PNEUMONIA; of other classes, of the one that is called; None of findings
    label: str | None = None  # the call, one of the classes; of findings those that are called, joined by bars
    possible: tuple[str, ...] | None = None  # classes at the chosen error rate; None where it is not known
    warnings: tuple[str, ...] = ()
    compared: bool = False  # with the run's training images, so that no warning means that it is like them
    error: str | None = None
    radiograph: Radiograph | None = field(default=None, repr=False, compare=False)  # the decoded image
    probabilities: dict[str, float] | None = None  # of every class, where they are not NORMAL and PNEUMONIA

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that are called, of a network of findings."""
        return () if self.label in (None, NO_FINDING) else tuple(self.label.split(BETWEEN))

    @property
    def calls(self) -> tuple[str, ...]:
        """What it is called: a class, or every finding, or that there is none; empty where nothing was predicted."""
        return self.findings or (() if self.label is None else (self.label,))

    @property
    def likeliest(self) -> str | None:
        """The class that is called; of findings the likeliest one that is called, or the likeliest if none is.

        None where nothing was predicted.
        """
        if self.probabilities is None or self.label in self.probabilities:
            return self.label
        return max(self.findings or self.probabilities, key=self.probabilities.__getitem__)

    @property
    def uncertain(self) -> bool | None:
        """Whether another class than the called one is possible, or none at all; None where it is not known."""
        return None if self.possible is None else self.possible != (self.label,)

    def as_json(self, threshold: Threshold, model: str, films: str) -> dict[str, Any]:
        """Returns the object that `predict --json` prints for the file; `error` is there only where there is one.

        `model` is the name of the network, and `films` says whose films it learned from; empty where nobody said.
        """
        value = {
            "file": self.file,
            "probability": self.probability,
            "label": self.label,
            "threshold": threshold.value,
            "threshold_rule": threshold.rule,
            "uncertain": self.uncertain,
            "possible": None if self.possible is None else list(self.possible),
            "error_rate": threshold.sets.error_rate if threshold.sets else None,
            "warnings": list(self.warnings),
            "compared_with_training": self.compared,
            "model": model,
            "films": films or None,
            "disclaimer": DISCLAIMER,
        }
        if self.probabilities is not None:
            value["probabilities"] = self.probabilities
        if threshold.of_findings is not None and self.label is not None:
            value |= {"findings": list(self.findings), "thresholds": dict(threshold.of_findings)}
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
    answers, classes = iter(()), model.descriptions[0].classes
    if squares:
        # one array for each network
        padded = [
            np.stack([*each, *[np.zeros_like(each[0])] * (size - len(each))]) for each in zip(*squares, strict=True)
        ]
        logits, remarks = answered(model, padded if len(padded) > 1 else padded[0])
        answers = zip(probabilities_of(model, logits[: len(squares)]), remarks, strict=False)
    return [
        prediction_of(file, outcome, *next(answers), threshold, compared=compared, classes=classes)
        if isinstance(outcome, Radiograph)
        else FilePrediction(file, error=outcome)
        for file, outcome in outcomes
    ]


def probabilities_of(model: Predictor, logits: np.ndarray) -> np.ndarray:
    """Returns what logits [N, K] say: the probability [N] of PNEUMONIA, or those [N, K] of other classes."""
    description = model.descriptions[0]
    if description.kind == FINDINGS:
        return sigmoid_of(logits)
    return probability_of(logits) if description.classes == CLASS_NAMES else softmax_of(logits)


def answered(model: Predictor, images: Any) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Returns the logits [N, K] of images, and for each what its distance from the training images gives to remark.

    `images` is uint8 [N, S, S] in 0..255; of several networks, one such array each.
    """
    limit = model.feature_limit
    if limit is None:
        logits = model.logits(images)
        return logits, [()] * len(logits)
    logits, distances = model.logits_and_distances(images)
    remarks = (limit.remark(float(distance)) for distance in distances)
    return logits, [() if remark is None else (remark,) for remark in remarks]


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
    remarks: tuple[str, ...],
    threshold: Threshold,
    *,
    compared: bool,
    classes: tuple[str, ...] = CLASS_NAMES,
) -> FilePrediction:
    """Returns what is told of a radiograph with this probability of PNEUMONIA, or these [K] of other `classes`.

    `remarks` are those of the network's features, and come first among the warnings. `compared` says whether its
    quality was held against that of the training images.
    """
    if threshold.of_findings is not None:
        told = dict(zip(classes, map(float, probability), strict=True))
        called = [name for name in classes if calls_of(np.asarray(told[name]), threshold.of_findings[name])]
        return FilePrediction(
            file,
            label=BETWEEN.join(called) or NO_FINDING,
            warnings=(*remarks, *radiograph.warnings),
            compared=compared,
            radiograph=radiograph,
            probabilities=told,
        )
    if classes != CLASS_NAMES:
        highest = int(np.argmax(probability))
        return FilePrediction(
            file,
            float(probability[highest]),
            classes[highest],
            warnings=(*remarks, *radiograph.warnings),
            compared=compared,
            radiograph=radiograph,
            probabilities=dict(zip(classes, map(float, probability), strict=True)),
        )
    called = CLASS_NAMES[PNEUMONIA if calls_of(np.asarray(probability), threshold.value) else NORMAL]
    return FilePrediction(
        file,
        float(probability),
        called,
        threshold.sets.possible(probability) if threshold.sets else None,
        (*remarks, *radiograph.warnings),
        compared=compared,
        radiograph=radiograph,
    )
