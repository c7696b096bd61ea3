#!/usr/bin/env python
"""Writes the page of the study of bacteria and virus from its stored runs.

    .venv/bin/python scripts/write_subtypes.py                      # of results/subtypes
    .venv/bin/python scripts/write_subtypes.py FOLDER [RESAMPLES]

FOLDER holds three/seed? and two/seed?, as `cxr-jax publish` copies them. It gets a block in `README.md` and two
comparisons: `pneumonia.json`, and `bacteria_against_virus.json`, in which PNEUMONIA stands for bacteria and NORMAL for
virus. docs/registered/subtypes.md is the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.class_judgement import ClassJudgement, read_class_judgement
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Comparison, EndpointSummary, write_comparison
from cxr_jax.evaluation.confidence import confidence_of
from cxr_jax.evaluation.numbers import TO, number_text, with_deviation, with_interval
from cxr_jax.evaluation.operating_point import choose_operating_point
from cxr_jax.evaluation.recipe_draws import Recipe, Ruled
from cxr_jax.evaluation.seeds import spread
from cxr_jax.reporting.tables import markdown_table, write_block
from cxr_jax.runs.class_predictions import ClassPredictions, read_class_predictions
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.merged_classes import Merged, merge_to_two
from cxr_jax.runs.predictions import Predictions, read_predictions
from cxr_jax.vocabulary import DISCLAIMER

ROOT = Path(__file__).resolve().parent.parent
THREE, TWO = "three", "two"
SUMMED: Merged = {"NORMAL": ("normal",), "PNEUMONIA": ("bacteria", "virus")}
APART: Merged = {"NORMAL": ("virus",), "PNEUMONIA": ("bacteria",)}
PUBLISHED = {"roc_auc": 0.940, "accuracy@half": 0.907, "sensitivity@half": 0.886, "specificity@half": 0.909}
"""What Kermany et al. (2018) report of bacteria against virus, by endpoint."""

TARGET_SENSITIVITY = 0.975
BLOCK = "study of bacteria and virus"
"""Name of the marks around what is written in the README; the text outside stays."""


def main(arguments: Sequence[str]) -> None:
    """Compares the arms and writes the page."""
    folder = Path(arguments[0]) if arguments else ROOT / "results/subtypes"
    confidence = confidence_of(*arguments[1:2])
    runs = {arm: [RunFolder.open(path) for path in sorted((folder / arm).glob("seed*"))] for arm in (THREE, TWO)}
    if not runs[THREE] or len(runs[THREE]) != len(runs[TWO]):
        counts = ", ".join(f"{len(found)} of {arm}" for arm, found in runs.items())
        raise UserError(f"{folder} has not the same number of runs of each arm ({counts}): finish the study first")
    apart = compare([_bacteria(runs[THREE], THREE, _three), _bacteria(runs[TWO], TWO, _two)], confidence, reference=TWO)
    pneumonia = compare([_pneumonia(runs[THREE], _three), _pneumonia(runs[TWO], _two)], confidence, reference=TWO)
    write_comparison(folder / "bacteria_against_virus.json", apart)
    write_comparison(folder / "pneumonia.json", pneumonia)
    judged = [read_class_judgement(run.evaluation) for run in runs[THREE]]
    text = "\n".join((*_apart_page(apart), *_pneumonia_page(pneumonia), *_three_page(judged), DISCLAIMER, ""))
    readme = folder / "README.md"
    write_block(readme, BLOCK, text, title="Bacteria and virus")
    print(f"{readme} and both comparisons are written")


def _three(run: RunFolder, split: str) -> Predictions:
    """Returns the predictions of a network of three classes, with bacteria and virus summed to pneumonia."""
    return merge_to_two(_classes(run, split), SUMMED)


def _two(run: RunFolder, split: str) -> Predictions:
    return read_predictions(run.predictions_of(split))


def _classes(run: RunFolder, split: str) -> ClassPredictions:
    found = read_class_predictions(run.predictions_of(split))
    if not isinstance(found, ClassPredictions):
        raise UserError(f"{run.path} is no run of classes that exclude each other")
    return found


def _pneumonia(runs: Sequence[RunFolder], read: Callable[[RunFolder, str], Predictions]) -> Recipe:
    """Returns an arm as a recipe of two classes, its thresholds chosen on validation by the registered rule."""
    validation = tuple(read(run, "val") for run in runs)
    points = tuple(
        choose_operating_point(table, rule="sensitivity", target_sensitivity=TARGET_SENSITIVITY) for table in validation
    )
    name = THREE if read is _three else TWO
    thresholds = tuple(point.threshold for point in points)
    return Recipe(name, tuple(read(run, "test") for run in runs), thresholds, Ruled(validation, points))


def _bacteria(runs: Sequence[RunFolder], name: str, read: Callable[[RunFolder, str], Predictions]) -> Recipe:
    """Returns an arm's ranking of bacteria, in the place of PNEUMONIA, against virus, on the images of both alone.

    That of three classes is the share of bacteria in the probability of both. That of two is its probability of
    pneumonia, which tells nothing of the cause.
    """
    if read is _three:
        return Recipe(name, tuple(merge_to_two(_classes(run, "test"), APART) for run in runs))
    return Recipe(name, tuple(_relabelled(read(run, "test")) for run in runs))


def _relabelled(table: Predictions) -> Predictions:
    """Returns the images of pneumonia with bacteria as PNEUMONIA and virus as NORMAL."""
    bacteria = np.array([name == "bacteria" for name in table.subtype])
    kept = np.array([name in ("bacteria", "virus") for name in table.subtype])
    label = bacteria[kept].astype(int)
    subtype = tuple("unknown" if positive else "normal" for positive in label)
    few = table.select(kept)
    return Predictions(few.file, few.split, few.group, subtype, label, None, few.probability)


def _apart_page(found: Comparison) -> Iterator[str]:
    """Yields the section on question 1."""
    three, two = found.recipes[THREE], found.recipes[TWO]
    groups = "" if found.groups is None else f" of {found.groups:,} groups"
    yield from ("## Bacteria against virus", "")
    yield (
        f"{found.images:,} pneumonias{groups}, {found.pneumonia:,} of bacteria. Means over {three.seeds} seeds, with "
        "intervals for other patients and other seeds. Each image is called what is likelier."
    )
    rows = []
    for key, title in (
        ("roc_auc", "ROC-AUC"),
        ("accuracy@half", "Accuracy"),
        ("sensitivity@half", "Sensitivity (bacteria)"),
        ("specificity@half", "Specificity (virus)"),
    ):
        published = number_text(PUBLISHED[key])
        rows.append([title, _told(three.endpoints.get(key)), published])
    yield from ("", markdown_table([["", "three classes", "Kermany 2018"], *rows]))
    summary, untold = three.endpoints["roc_auc"], two.endpoints["roc_auc"]
    if summary is not None and summary.interval is not None:
        reached = summary.interval.high >= PUBLISHED["roc_auc"]
        verb = "is reached: the interval holds it or lies above" if reached else "is not reached: the interval is below"
        yield from (f"Kermany's ROC-AUC of {number_text(PUBLISHED['roc_auc'])} {verb}.", "")
    yield (
        "The networks of two classes were never told of subtypes. Their probability of pneumonia tells bacteria from "
        f"virus with a ROC-AUC of {_told(untold)}."
    )
    yield ""


def _pneumonia_page(found: Comparison) -> Iterator[str]:
    """Yields the section on question 2."""
    (pair,) = found.pairs
    yield from ("## Three classes summed to two", "")
    yield (
        f"Pneumonia against normal on all {found.images:,} images. Differences are paired, with intervals for other "
        f"patients and other seeds. The threshold reaches {100 * TARGET_SENSITIVITY:g} % sensitivity on validation."
    )
    rows = []
    for key in (
        "roc_auc",
        "balanced_accuracy@operating_point",
        "sensitivity@operating_point",
        "specificity@operating_point",
        "accuracy@half",
    ):
        answer = pair.endpoints[key]
        interval = answer.ends
        values = [_told(found.recipes[arm].endpoints.get(key)) for arm in (THREE, TWO)]
        difference = with_interval(answer.difference, interval, "+.3f", word=TO)
        rows.append([found.endpoints[key].title, *values, difference])
    yield from ("", markdown_table([["", "three, summed", "two", "difference"], *rows]))
    answer = pair.endpoints["roc_auc"]
    interval = answer.ends
    if interval is None or interval.low <= 0 <= interval.high:
        yield "Nobody can tell from these images whether three classes rank pneumonia better or worse than two."
    else:
        yield f"Three classes rank pneumonia {'better' if interval.low > 0 else 'worse'} than two on these images."
    yield ""


def _three_page(judged: Sequence[ClassJudgement]) -> Iterator[str]:
    """Yields the section on the three classes as they are."""
    classes = judged[0].classes
    yield from ("## The three classes as they are", "")
    yield f"Means ± standard deviations over {len(judged)} seeds, each image called what is likeliest."
    rows = [
        [title, _over_seeds([entry.test.metrics[name].value for entry in judged])]
        for name, title in (("accuracy", "Accuracy"), ("balanced_accuracy", "Balanced accuracy"))
    ]
    for name in classes:
        aucs = [entry.test.classes[name].metrics["roc_auc"].value for entry in judged]
        rows.append([f"ROC-AUC of {name} against the rest", _over_seeds(aucs)])
    yield from ("", markdown_table([["", "test"], *rows]))
    first = judged[0].test.confusion
    counts = [[name, *map(str, row)] for name, row in zip(classes, first, strict=True)]
    yield from ("Seed 0, rows are the true class:", "")
    yield markdown_table([["", *(f"called {name}" for name in classes)], *counts])


def _told(summary: EndpointSummary | None) -> str:
    return "–" if summary is None else with_interval(summary.mean, summary.interval, ".3f", word=TO)


def _over_seeds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    found = spread(known)
    return with_deviation(found.mean, found.deviation)


if __name__ == "__main__":
    run_script(main)
