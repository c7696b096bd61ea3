"""The radiographs that are to be explained: cases of a split, chosen by its predictions, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.data.cache import encoded_images_at
from cxr_jax.data.prepared import open_data_of_run, replayed_of_run
from cxr_jax.data.replay import files_of_replayed
from cxr_jax.errors import UserError
from cxr_jax.explain.selection import Calls, Rule, select_outcomes, select_worst
from cxr_jax.runs.class_predictions import ClassPredictions, read_class_predictions
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.terminal import as_typed
from cxr_jax.vocabulary import PNEUMONIA

Thresholds = float | Mapping[str, float] | None
"""From which probability PNEUMONIA is called; or each finding; None where the highest probability is called."""


@dataclass(frozen=True)
class Subject:
    """A radiograph to be explained, still encoded."""

    file: str
    data: bytes
    label: str | None  # the true class, or the cell of the findings that there are; None where nothing is known
    probability: float | None = None  # where it stands in the run's predictions already
    asked: str = ""  # the class or finding that it was chosen for; empty where it was chosen for none


@dataclass(frozen=True)
class Subjects:
    """Radiographs in the order of a page."""

    subjects: list[Subject]
    groups: list[tuple[str, int]]  # headings, each with how many subjects follow under it; they may be none
    title: str  # what they are, in words


@dataclass(frozen=True)
class _Table:
    """The stored predictions of a split, call by call."""

    calls: Calls
    probability: np.ndarray  # float64 [N], of each call
    asked: tuple[str, ...]  # the finding of each; empty names of exclusive classes
    told: str  # how many there are, in words


def errors_of_split(
    run: RunFolder, split: str, thresholds: Thresholds, count: int, rule: Rule, name: str = ""
) -> Subjects:
    """Returns `count` wrong calls on a split chosen by `rule`; without errors, the least certain calls.

    Of findings they are the calls of the one called `name`, or of all together; of several exclusive classes those that
    call an image `name`, or take an image of it for another, or all.

    Raises:
        UserError: the split was not predicted, or its images are not in the prepared data.
    """
    table = _predicted(run, split, thresholds, name)
    selection = select_worst(table.calls, count, rule)
    if selection.errors:
        chosen_by = "the most confident" if rule == "confident" else f"some, by the rule {rule!r},"
        title = f"{chosen_by} of {selection.errors} wrong calls among {table.told}"
    else:
        title = f"no call among {table.told} is wrong, so the least certain are shown"
    subjects = _subjects(run, split, table, selection.rows)
    return Subjects(subjects, [("", len(subjects))], title)


def outcomes_of_split(
    run: RunFolder, split: str, thresholds: Thresholds, each: int, rule: Rule, name: str = ""
) -> Subjects:
    """Returns `each` true and false positives and negatives on a split chosen by `rule`, as far as there are any.

    Of findings they are the calls of the one called `name`, or of all together; of several exclusive classes those of
    `name`.

    Raises:
        UserError: the split was not predicted, or its images are not in the prepared data.
    """
    table = _predicted(run, split, thresholds, name)
    outcomes = select_outcomes(table.calls, each, rule)
    subjects = _subjects(run, split, table, np.concatenate([outcome.rows for outcome in outcomes]))
    groups = [
        (f"{outcome.name.capitalize()}: {len(outcome.rows)} of {outcome.total}", len(outcome.rows))
        for outcome in outcomes
    ]
    return Subjects(subjects, groups, f"outcomes among {table.told}, chosen by the rule {rule!r}")


def _predicted(run: RunFolder, split: str, thresholds: Thresholds, name: str) -> _Table:
    """Returns the calls of a split: of PNEUMONIA, or of `name`, or where that is empty of all findings or classes."""
    path = run.predictions_of(split)
    if not path.is_file():
        raise UserError(
            f"{run.path} has no predictions on {split}: run {as_typed('cxr-jax', 'evaluate', run.path)} first"
        )
    if thresholds is None:
        return _classes_predicted(read_class_predictions(path), split, name)
    if not isinstance(thresholds, Mapping):
        found = read_predictions(path)
        calls = Calls.at(found.file, found.probability, found.label == PNEUMONIA, thresholds)
        return _Table(calls, found.probability, ("",) * len(found), f"{len(found)} on {split}")
    table = read_class_predictions(path)
    parts, probabilities, asked = [], [], []
    for finding in [name] if name else table.classes:
        known, present = table.asked(finding)
        probability = table.probabilities[known, table.classes.index(finding)]
        files = [file for file, kept in zip(table.file, known, strict=True) if kept]
        parts.append(Calls.at(files, probability, present, thresholds[finding]))
        probabilities.append(probability)
        asked += [finding] * len(files)
    calls = Calls.together(parts)
    told = f"{len(calls.file):,} of {name or f'{len(table.classes)} findings'} in {len(table):,} images on {split}"
    return _Table(calls, np.concatenate(probabilities), tuple(asked), told)


def _classes_predicted(table: ClassPredictions, split: str, name: str) -> _Table:
    """Returns the calls of exclusive classes: which class, or where one is named whether it is that.

    Their confidence is by how much the highest probability exceeds the next, which of two classes is how far it lies
    from the threshold 0.5.
    """
    ordered = np.sort(table.probabilities, axis=1)
    called, label = table.called, table.label
    told = f"{len(table):,} on {split}"
    if name:
        index = table.classes.index(name)
        called, label, told = called == index, label == index, f"{len(table):,} of {name} on {split}"
    calls = Calls(table.file, called, label, ordered[:, -1] - ordered[:, -2])
    return _Table(calls, ordered[:, -1], ("",) * len(table), told)


def _subjects(run: RunFolder, split: str, table: _Table, chosen: Sequence[int]) -> list[Subject]:
    """Returns calls of a run's predictions with their encoded images."""
    prepared = open_data_of_run(run)
    sources = [(prepared, [example.file for example in prepared.examples])]
    if (replayed := replayed_of_run(run)) is not None:
        sources.append((replayed, files_of_replayed(replayed)))
    asked, found = {table.calls.file[call] for call in chosen}, {}
    for data, files in sources:
        rows = [row for row, file in enumerate(files) if file in asked]
        images = encoded_images_at(data, rows) if rows else []
        for row, image in zip(rows, images, strict=True):
            found[files[row]] = image, data.examples[row].label
    if missing := [file for call in chosen if (file := table.calls.file[call]) not in found]:
        raise UserError(
            f"{missing[0]} of {run.predictions_of(split)} is not in {prepared.path}: evaluate the run again"
        )
    return [
        Subject(file, *found[file], float(table.probability[call]), table.asked[call])
        for call in chosen
        for file in [table.calls.file[call]]
    ]
