"""What a network calls radiographs, each with the heat map of the evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from cxr_jax.data.findings import present_in, unknown_in
from cxr_jax.evaluation.cases import calls_of
from cxr_jax.explain.case import Case
from cxr_jax.explain.heat_maps import heat_maps
from cxr_jax.explain.subjects import Subject, Thresholds
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.finding_predictions import sigmoid_of
from cxr_jax.runs.predictions import probability_of, softmax_of
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL, PNEUMONIA


def explain_cases(
    trained: TrainedModel,
    subjects: Sequence[Subject],
    images: np.ndarray,
    *,
    threshold: Thresholds,
    stage: str,
    explained: str = "",
) -> list[tuple[Case, np.ndarray]]:
    """Returns what the network calls each subject, with its heat map float32 [h, w].

    Args:
        trained: the network.
        subjects: N radiographs; a probability that they bring with them is not computed again.
        images: the same as the network sees them, uint8 [N, S, S].
        threshold: PNEUMONIA is called if its probability is at least this; or each finding; None where the class of the
            highest probability is called.
        stage: at which maps are made.
        explained: class whose evidence is shown; empty: the one that a subject asks for, or else the one that
            is called. Of findings that is the one of the highest probability.

    Raises:
        UserError: the network has no such stage.
    """
    logits = trained.logits(images)
    if isinstance(threshold, Mapping):
        cases, classes = _finding_cases(trained, subjects, logits, threshold, stage, explained)
    elif threshold is None:
        cases, classes = _class_cases(trained, subjects, logits, stage, explained)
    else:
        cases, classes = _two_class_cases(subjects, logits, threshold, stage, explained)
    maps = heat_maps(trained, images, classes, stage)
    return [
        (dataclasses.replace(case, blank=bool(blank)), heat)
        for case, heat, blank in zip(cases, maps.heat, maps.blank, strict=True)
    ]


def _two_class_cases(
    subjects: Sequence[Subject], logits: np.ndarray, threshold: float, stage: str, explained: str
) -> tuple[list[Case], np.ndarray]:
    """Returns the cases, whose maps are not made yet, and the class [N] that is explained in each."""
    known = [subject.probability for subject in subjects]
    probability = np.array([c if k is None else k for c, k in zip(probability_of(logits), known, strict=True)])
    called = np.where(calls_of(probability, threshold), PNEUMONIA, NORMAL)
    named = [explained or subject.asked for subject in subjects]
    classes = np.array([CLASS_NAMES.index(n) if n else c for n, c in zip(named, called, strict=True)])
    cases = [
        Case(
            file=subject.file,
            label=subject.label,
            called=CLASS_NAMES[called[row]],
            probability=float(probability[row]),
            threshold=threshold,
            explained=CLASS_NAMES[classes[row]],
            stage=stage,
            blank=False,
        )
        for row, subject in enumerate(subjects)
    ]
    return cases, classes


def _class_cases(
    trained: TrainedModel, subjects: Sequence[Subject], logits: np.ndarray, stage: str, explained: str
) -> tuple[list[Case], np.ndarray]:
    """Returns the cases of exclusive classes, whose maps are not made yet, and the class [N] explained in each."""
    names, probabilities = trained.description.classes, softmax_of(logits)
    called = probabilities.argmax(axis=1)
    shown = [explained or subject.asked or names[index] for subject, index in zip(subjects, called, strict=True)]
    cases = [
        Case(
            file=subject.file,
            label=subject.label,
            called=names[index],
            probability=float(row[names.index(name)]),
            threshold=None,
            explained=name,
            stage=stage,
            blank=False,
            scored=name,
        )
        for subject, row, index, name in zip(subjects, probabilities, called, shown, strict=True)
    ]
    return cases, np.array([names.index(name) for name in shown])


def _finding_cases(
    trained: TrainedModel,
    subjects: Sequence[Subject],
    logits: np.ndarray,
    thresholds: Mapping[str, float],
    stage: str,
    explained: str,
) -> tuple[list[Case], np.ndarray]:
    """Returns the cases, whose maps are not made yet, and the finding [N] that is explained in each."""
    names, probabilities = trained.description.classes, sigmoid_of(logits)
    cases, classes = [], []
    for subject, row in zip(subjects, probabilities, strict=True):
        name = explained or subject.asked or names[int(row.argmax())]
        classes.append(names.index(name))
        brought = subject.probability if subject.asked == name else None
        probability = float(row[classes[-1]]) if brought is None else brought
        case = Case(
            file=subject.file,
            label=_told(name, subject.label),
            called=name if probability >= thresholds[name] else absence(name),
            probability=probability,
            threshold=thresholds[name],
            explained=name,
            stage=stage,
            blank=False,
            scored=name,
        )
        cases.append(case)
    return cases, np.array(classes)


def _told(name: str, cell: str | None) -> str | None:
    """Returns whether a finding is there, as the cell of an image says; None where nobody knows."""
    if cell is None or name in unknown_in(cell):
        return None
    return name if name in present_in(cell) else absence(name)


def absence(name: str) -> str:
    """Returns how it is called that a finding is not there."""
    return f"no {name}"
