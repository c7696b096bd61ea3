"""Figures of predictions: confusion, ROC, precision-recall, reliability and the distribution of scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cxr_jax.evaluation.judgement import CalibrationMoment, JudgedSplit, Judgement
from cxr_jax.evaluation.metrics import precision_recall_curve, roc_curve
from cxr_jax.evaluation.numbers import measured_text
from cxr_jax.reporting.curves import epoch_figure, iteration_figure
from cxr_jax.reporting.style import (
    CLASS_COLOURS,
    GREY,
    INK,
    SKY,
    TEST_COLOUR,
    VALIDATION_COLOUR,
    WIDTH,
    new_figure,
    save,
    share_axes,
    styled,
)
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL, PNEUMONIA


def draw_evaluation(
    folder: str | Path,
    judgement: Judgement,
    test: Predictions,
    validation: Predictions | None = None,
    lines: Sequence[dict[str, Any]] | None = None,
) -> list[Path]:
    """Draws every figure that these data allow into `folder`, as PNG and SVG, and returns the paths.

    None of them shows a radiograph. A figure that needs both classes is left out where one is missing.

    Args:
        folder: made if need be; figures of the same name are replaced.
        judgement: what `evaluation.judge.judge` gave for these predictions.
        test: the predictions that were judged.
        validation: the predictions on validation, or None.
        lines: those of metrics.jsonl, or None.

    Raises:
        UserError: a file cannot be written.
    """
    figures = {"confusion_matrix": confusion_figure(judgement.test, "Test")}
    if judgement.validation is not None:
        figures["confusion_matrix_validation"] = confusion_figure(judgement.validation, "Validation")
    if _has_both_classes(test):
        shown = validation if validation is not None and _has_both_classes(validation) else None
        figures["roc"] = roc_figure(judgement, test, shown)
        figures["precision_recall"] = precision_recall_figure(judgement, test, shown)
    figures["reliability"] = reliability_figure(judgement)
    figures["score_distributions"] = distribution_figure(judgement, test, validation)
    figures["decision_curve"] = decision_figure(judgement)
    if lines and any(line["kind"] == "train" for line in lines):
        figures["training_iterations"] = iteration_figure(lines)
        figures["training_epochs"] = epoch_figure(lines)
    return [path for name, figure in figures.items() for path in save(figure, folder, name)]


def _has_both_classes(predictions: Predictions) -> bool:
    return len(np.unique(predictions.label)) == len(CLASS_NAMES)


def confusion_figure(judged: JudgedSplit, title: str) -> Figure:
    """Returns the confusion matrix of one judged split: counts, and shares of the true class, which shade the cells."""
    counts = np.array(judged.confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    with styled():
        figure = new_figure(WIDTH, 3.7)
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25)
        for row in range(2):
            for column in range(2):
                colour = "white" if shares[row, column] > 0.85 else INK
                axes.text(
                    column, row - 0.07, f"{counts[row, column]:,}", ha="center", va="center", fontsize=17, color=colour
                )
                share = f"{shares[row, column]:.1%}\nof {CLASS_NAMES[row].lower()}" if totals[row, 0] else "none"
                axes.text(column, row + 0.22, share, ha="center", va="center", color=colour)
        axes.set_xticks((0, 1), CLASS_NAMES)
        axes.set_yticks((0, 1), CLASS_NAMES, rotation=90, va="center")
        axes.set(xlabel="Called", ylabel="True class", title=f"{title}: {counts.sum():,} images")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xticks((0.5,), minor=True)
        axes.set_yticks((0.5,), minor=True)
        axes.grid(visible=True, which="minor", color="white", linewidth=3)
        axes.tick_params(which="minor", length=0)
    return figure


def roc_figure(judgement: Judgement, test: Predictions, validation: Predictions | None = None) -> Figure:
    """Returns the ROC of test, and of validation if given, with the area, its interval and the operating point."""
    with styled():
        figure = new_figure(WIDTH, 4.2)
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
        for name, predictions in _splits(test, validation):
            metrics = judgement.splits[name].metrics
            x, y, _ = roc_curve(predictions.label, predictions.probability)
            legend = f"{name}, AUC {measured_text(metrics['roc_auc'])}"
            axes.plot(x, y, drawstyle="steps-post", label=legend, **_line_of(name))
            if metrics["sensitivity"].value is not None and metrics["specificity"].value is not None:
                point = 1 - metrics["specificity"].value, metrics["sensitivity"].value
                axes.plot(*point, **_marker_of(name), zorder=4)
        _name_operating_point(axes, judgement)
        share_axes(axes, "1 − specificity", "Sensitivity")
        axes.set_title("ROC curve")
        axes.legend(loc="lower right")
    return figure


def precision_recall_figure(judgement: Judgement, test: Predictions, validation: Predictions | None = None) -> Figure:
    """Returns precision over sensitivity of test, and of validation if given, with the share of PNEUMONIA as base."""
    with styled():
        figure = new_figure(WIDTH, 4.2)
        axes = figure.subplots()
        for name, predictions in _splits(test, validation):
            metrics = judgement.splits[name].metrics
            precision, recall, _ = precision_recall_curve(predictions.label, predictions.probability)
            legend = f"{name}, AUC {measured_text(metrics['average_precision'])}"
            axes.plot(np.r_[0, recall], np.r_[precision[0], precision], label=legend, **_line_of(name))
            base = judgement.splits[name].all_pneumonia_accuracy
            axes.axhline(base, linewidth=0.9, linestyle=(0, (2, 2)), color=_line_of(name)["color"], alpha=0.6)
            if metrics["precision"].value is not None:
                axes.plot(metrics["sensitivity"].value, metrics["precision"].value, **_marker_of(name), zorder=4)
        _name_operating_point(axes, judgement)
        axes.plot((), (), color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), label="all called PNEUMONIA")
        share_axes(axes, "Sensitivity (recall)", "Precision (PPV)")
        axes.set_title("Precision-recall curve")
        axes.legend(loc="lower left")
    return figure


def reliability_figure(judgement: Judgement) -> Figure:
    """Returns share of PNEUMONIA over probability in bins of equal mass, before and after temperature scaling."""
    moments = ["before"] + ([] if judgement.test.calibration.after is None else ["after"])
    titles = {
        "before": "As predicted",
        "after": f"Temperature {judgement.test.calibration.temperature or 1:.2f}",
    }
    with styled():
        figure = new_figure(WIDTH, 3.9 * len(moments))
        panels = figure.subplots(len(moments), 1, squeeze=False, sharex=True)[:, 0]
        for axes, moment in zip(panels, moments, strict=True):
            axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
            for name, judged in reversed(judgement.splits.items()):
                calibration = judged.calibration.before if moment == "before" else judged.calibration.after
                if calibration is not None:
                    _draw_reliability(axes, name, calibration)
            share_axes(axes, "", "Share that is PNEUMONIA")
            axes.set_title(titles[moment])
            axes.legend(loc="upper left")
        panels[-1].set_xlabel("Probability of PNEUMONIA")
    return figure


def _draw_reliability(axes: Axes, name: str, moment: CalibrationMoment) -> None:
    """Draws one curve with its Wilson intervals; the legend states the calibration error of the same kind of bins."""
    curve = moment.curve
    x = np.array([entry.mean_probability for entry in curve])
    y = np.array([entry.share_of_pneumonia for entry in curve])
    ends = np.array([(entry.interval.low, entry.interval.high) for entry in curve if entry.interval])
    error = moment.error("mass", 10)
    style = _line_of(name)
    axes.errorbar(
        x,
        y,
        yerr=np.abs(ends.T - y),
        color=style["color"],
        linestyle=style["linestyle"],
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
        marker=_marker_of(name)["marker"],
        markersize=4.5,
        label=f"{name}, ECE {error.value:.3f}",
    )


def decision_figure(judgement: Judgement) -> Figure:
    """Returns net benefit on test over the threshold probability, beside calling all images PNEUMONIA and none."""
    curves = judgement.test.decision_curve
    thresholds = curves.thresholds
    with styled():
        figure = new_figure(WIDTH, 4.2)
        axes = figure.subplots()
        axes.plot(thresholds, curves.before, color=TEST_COLOUR, label="network, as predicted")
        if curves.after is not None:
            axes.plot(thresholds, curves.after, color=SKY, linestyle=(0, (5, 2)), label="network, after temperature")
        axes.plot(thresholds, curves.all, color=GREY, linewidth=1.2, label="all called PNEUMONIA")
        axes.axhline(0, color=GREY, linewidth=1.2, linestyle=(0, (2, 2)), label="none called PNEUMONIA")
        highest = judgement.test.all_pneumonia_accuracy
        axes.set(xlim=(0, 1), ylim=(-0.15 * max(highest, 0.2), 1.08 * max(highest, 0.2)), title="Decision curve")
        axes.set(xlabel="Threshold probability", ylabel="Net benefit")
        figure.legend(loc="outside lower center")
    return figure


def distribution_figure(judgement: Judgement, test: Predictions, validation: Predictions | None = None) -> Figure:
    """Returns histograms of the probability by class, validation over test, with the threshold."""
    splits = list(_splits(test, validation))[::-1]
    threshold = judgement.operating_point.threshold
    edges = np.linspace(0, 1, 41)
    with styled():
        figure = new_figure(WIDTH, 2.1 * len(splits) + 0.5)
        panels = figure.subplots(len(splits), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, predictions) in zip(panels, splits, strict=True):
            for label in (PNEUMONIA, NORMAL):
                own = predictions.probability[predictions.label == label]
                if len(own) == 0:
                    continue
                heights = np.histogram(own, edges)[0] / len(own)
                axes.stairs(heights, edges, fill=True, color=CLASS_COLOURS[label], alpha=0.28)
                axes.stairs(
                    heights,
                    edges,
                    color=CLASS_COLOURS[label],
                    linewidth=1.2,
                    linestyle="-" if label == PNEUMONIA else (0, (3, 1)),
                    label=f"{CLASS_NAMES[label]} ({len(own):,})",
                )
            axes.axvline(threshold, color=INK, linewidth=1, label=f"threshold {threshold:.3g}")
            axes.set(title=name.capitalize(), ylabel="Share of class", xlim=(0, 1))
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.grid(visible=False, axis="x")
            axes.set_ylim(top=1.5 * axes.get_ylim()[1])  # the legend stands there
            axes.legend(loc="upper center")
        panels[-1].set_xlabel("Probability of PNEUMONIA")
    return figure


def _splits(test: Predictions, validation: Predictions | None) -> list[tuple[str, Predictions]]:
    return [("test", test)] + ([] if validation is None else [("validation", validation)])


def _line_of(split: str) -> dict[str, Any]:
    if split == "test":
        return {"color": TEST_COLOUR, "linestyle": "-", "linewidth": 1.7}
    return {"color": VALIDATION_COLOUR, "linestyle": (0, (5, 2)), "linewidth": 1.4}


def _marker_of(split: str) -> dict[str, Any]:
    marker = {"test": "o", "validation": "s"}[split]
    return {"marker": marker, "markersize": 7, "color": _line_of(split)["color"], "markeredgecolor": "white"}


def _name_operating_point(axes: Axes, judgement: Judgement) -> None:
    threshold = judgement.operating_point.threshold
    axes.plot(
        (),
        (),
        marker="o",
        markersize=7,
        linestyle="none",
        color=GREY,
        markeredgecolor="white",
        label=f"operating point, threshold {threshold:.3g}",
    )
