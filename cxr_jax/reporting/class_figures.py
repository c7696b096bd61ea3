"""Figures of K classes or findings: confusion of classes, ROC and reliability of each, and how training went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.evaluation.class_judgement import ClassJudgement, JudgedClassSplit
from cxr_jax.evaluation.metrics import roc_curve
from cxr_jax.evaluation.numbers import measured_text
from cxr_jax.reporting.curves import epoch_figure, iteration_figure
from cxr_jax.reporting.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, WIDTH, new_figure, save, share_axes, styled
from cxr_jax.runs.class_probabilities import ClassProbabilities

_COLOURS = (BLUE, ORANGE, GREEN, SKY, INK)
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))

SHOWN = 15
"""Classes that a figure can tell apart."""


def draw_class_evaluation(
    folder: str | Path,
    judgement: ClassJudgement,
    test: ClassProbabilities,
    lines: Sequence[dict[str, Any]] | None = None,
) -> list[Path]:
    """Draws every figure into `folder`, as PNG and SVG, and returns the paths; none shows a radiograph.

    Args:
        folder: made if need be; figures of the same name are replaced.
        judgement: what `judge_classes` gave for these predictions.
        test: the predictions that were judged.
        lines: those of metrics.jsonl, or None.

    Raises:
        UserError: a file cannot be written.
    """
    figures = {}
    if not judgement.of_findings:
        figures["confusion_matrix"] = confusion_of_classes(judgement.test, judgement.classes, "Test")
    if not judgement.of_findings and judgement.validation is not None:
        figures["confusion_matrix_validation"] = confusion_of_classes(
            judgement.validation, judgement.classes, "Validation"
        )
    figures["roc"] = roc_of_classes(judgement, test)
    figures["reliability"] = reliability_of_classes(judgement)
    if lines and any(line["kind"] == "train" for line in lines):
        figures["training_iterations"] = iteration_figure(lines)
        figures["training_epochs"] = epoch_figure(lines)
    return [path for name, figure in figures.items() for path in save(figure, folder, name)]


def confusion_of_classes(judged: JudgedClassSplit, classes: tuple[str, ...], title: str) -> Figure:
    """Returns the confusion matrix of one split: counts, and shares of the true class, which shade the cells."""
    counts = np.array(judged.confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    with styled():
        side = max(WIDTH, 1.1 + 0.8 * len(classes))
        figure = new_figure(side, side)
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25)
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.6 else INK
            told = f"{counts[row, column]:,}\n{shares[row, column]:.0%}" if totals[row, 0] else "none"
            axes.text(column, row, told, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(classes)), classes, rotation=35 if len(classes) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="Called", ylabel="True class", title=f"{title}: {counts.sum():,} images")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def roc_of_classes(judgement: ClassJudgement, test: ClassProbabilities) -> Figure:
    """Returns the ROC of each class against the rest on test, with its area; of the first fifteen classes.

    Of findings it is that of presence against absence, on the images of which it is known.
    """
    with styled():
        figure = new_figure(WIDTH, _height(judgement))
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
        for index, (name, judged) in enumerate(list(judgement.test.classes.items())[:SHOWN]):
            if judged.metrics["roc_auc"].value is None:
                continue
            rows, label = test.asked(name)
            x, y, _ = roc_curve(label.astype(int), test.probabilities[rows, test.classes.index(name)])
            legend = f"{name}, AUC {measured_text(judged.metrics['roc_auc'])}"
            axes.plot(x, y, drawstyle="steps-post", label=legend, **_line_of(index))
        share_axes(axes, "1 − specificity", "Sensitivity")
        axes.set_title("ROC of each finding" if judgement.of_findings else "ROC, each class against the rest")
        figure.legend(loc="outside lower center")
    return figure


def reliability_of_classes(judgement: ClassJudgement) -> Figure:
    """Returns the share that is of a class over its probability on test, in bins of equal mass, for each class."""
    with styled():
        figure = new_figure(WIDTH, _height(judgement))
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
        for index, (name, judged) in enumerate(list(judgement.test.classes.items())[:SHOWN]):
            moment = judged.calibration.before
            x = [entry.mean_probability for entry in moment.curve]
            y = [entry.share_of_pneumonia for entry in moment.curve]
            error = moment.error("mass", 10).value
            axes.plot(x, y, marker="o", markersize=4, label=f"{name}, ECE {error:.3f}", **_line_of(index))
        if judgement.of_findings:
            share_axes(axes, "Probability of the finding", "Share that shows it")
        else:
            share_axes(axes, "Probability of the class", "Share that is of the class")
        axes.set_title(f"Reliability of each {'finding' if judgement.of_findings else 'class'}")
        figure.legend(loc="outside lower center")
    return figure


def _height(judgement: ClassJudgement) -> float:
    """Returns the height in inches of square axes with a line of the legend below for each class that is shown."""
    return 4.5 + 0.25 * min(len(judgement.classes), SHOWN)


def _line_of(index: int) -> dict[str, Any]:
    """Returns colour and dashes of a class, different for each of the first fifteen."""
    dashes = _DASHES[index // len(_COLOURS) % len(_DASHES)]
    return {"color": _COLOURS[index % len(_COLOURS)], "linestyle": dashes, "linewidth": 1.5}
