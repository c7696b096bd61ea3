"""What a network calls radiographs, each with the heat map of the evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_jax.evaluation.cases import calls_of
from cxr_jax.explain.case import Case
from cxr_jax.explain.heat_maps import heat_maps
from cxr_jax.explain.subjects import Subject
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.predictions import probability_of
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL, PNEUMONIA


def explain_cases(
    trained: TrainedModel,
    subjects: Sequence[Subject],
    images: np.ndarray,
    *,
    threshold: float,
    stage: str,
    explained: str = "",
) -> list[tuple[Case, np.ndarray]]:
    """Returns what the network calls each subject, with its heat map float32 [h, w].

    Args:
        trained: the network.
        subjects: N radiographs; a probability that they bring with them is not computed again.
        images: the same as the network sees them, uint8 [N, S, S].
        threshold: PNEUMONIA is called if its probability is at least this.
        stage: at which maps are made.
        explained: class whose evidence is shown; empty: the one that is called.

    Raises:
        UserError: the network has no such stage.
    """
    computed = probability_of(trained.logits(images))
    known = [subject.probability for subject in subjects]
    probability = np.array([c if k is None else k for c, k in zip(computed, known, strict=True)])
    called = np.where(calls_of(probability, threshold), PNEUMONIA, NORMAL)
    classes = np.full_like(called, CLASS_NAMES.index(explained)) if explained else called
    maps = heat_maps(trained, images, classes, stage)
    return [
        (
            Case(
                file=subject.file,
                label=subject.label,
                called=CLASS_NAMES[called[row]],
                probability=float(probability[row]),
                threshold=threshold,
                explained=CLASS_NAMES[classes[row]],
                stage=stage,
                blank=bool(maps.blank[row]),
            ),
            maps.heat[row],
        )
        for row, subject in enumerate(subjects)
    ]
