"""The radiographs that are to be explained: cases of a split, chosen by its predictions, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_jax.data.cache import encoded_images_at
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.errors import UserError
from cxr_jax.explain.selection import Rule, select_outcomes, select_worst
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import Predictions, read_predictions
from cxr_jax.terminal import as_typed
from cxr_jax.vocabulary import CLASS_NAMES


@dataclass(frozen=True)
class Subject:
    """A radiograph to be explained, still encoded."""

    file: str
    data: bytes
    label: str | None  # the true class, where it is known
    probability: float | None = None  # where it stands in the run's predictions already


@dataclass(frozen=True)
class Subjects:
    """Radiographs in the order of a page."""

    subjects: list[Subject]
    groups: list[tuple[str, int]]  # headings, each with how many subjects follow under it; they may be none
    title: str  # what they are, in words


def errors_of_split(run: RunFolder, split: str, threshold: float, count: int, rule: Rule) -> Subjects:
    """Returns `count` wrong calls on a split chosen by `rule`; without errors, the least certain calls.

    Raises:
        UserError: the split was not predicted, or its images are not in the prepared data.
    """
    predictions = _predictions_of(run, split)
    selection = select_worst(predictions, threshold, count, rule)
    if selection.errors:
        chosen_by = "the most confident" if rule == "confident" else f"some, by the rule {rule!r},"
        title = f"{chosen_by} of {selection.errors} wrong calls among {len(predictions)} on {split}"
    else:
        title = f"no call on {split} is wrong, so the least certain of {len(predictions)} are shown"
    subjects = _subjects(run, split, predictions, selection.rows)
    return Subjects(subjects, [("", len(subjects))], title)


def outcomes_of_split(run: RunFolder, split: str, threshold: float, each: int, rule: Rule) -> Subjects:
    """Returns `each` true and false positives and negatives on a split chosen by `rule`, as far as there are any.

    Raises:
        UserError: the split was not predicted, or its images are not in the prepared data.
    """
    predictions = _predictions_of(run, split)
    outcomes = select_outcomes(predictions, threshold, each, rule)
    subjects = _subjects(run, split, predictions, np.concatenate([outcome.rows for outcome in outcomes]))
    groups = [
        (f"{outcome.name.capitalize()}: {len(outcome.rows)} of {outcome.total}", len(outcome.rows))
        for outcome in outcomes
    ]
    return Subjects(subjects, groups, f"outcomes among {len(predictions)} on {split}, chosen by the rule {rule!r}")


def _predictions_of(run: RunFolder, split: str) -> Predictions:
    if not run.predictions_of(split).is_file():
        raise UserError(
            f"{run.path} has no predictions on {split}: run {as_typed('cxr-jax', 'evaluate', run.path)} first"
        )
    return read_predictions(run.predictions_of(split))


def _subjects(run: RunFolder, split: str, predictions: Predictions, rows: np.ndarray) -> list[Subject]:
    """Returns rows of a run's predictions with their encoded images."""
    prepared = open_data_of_run(run)
    rows_by_file = {example.file: row for row, example in enumerate(prepared.examples)}
    chosen = predictions.select(rows)
    missing = [file for file in chosen.file if file not in rows_by_file]
    if missing:
        raise UserError(
            f"{missing[0]} of {run.predictions_of(split)} is not in {prepared.path}: evaluate the run again"
        )
    images = encoded_images_at(prepared, [rows_by_file[file] for file in chosen.file])
    return [
        Subject(file, data, CLASS_NAMES[label], float(probability))
        for file, data, label, probability in zip(chosen.file, images, chosen.label, chosen.probability, strict=True)
    ]
