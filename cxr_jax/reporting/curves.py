"""Figures of training: loss and accuracy of the training batches, with validation laid over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cxr_jax.reporting.style import BLUE, GREY, INK, ORANGE, SMALLEST_TEXT, WIDTH, new_figure, styled

Line = dict[str, Any]

ENDINGS = {
    "finished": "all epochs done",
    "patience": "stopped early",
    "interrupted": "interrupted",
    "terminated": "terminated",
}
"""What a reader is told of the `reason` of the end of training."""


def iteration_figure(lines: Sequence[Line]) -> Figure:
    """Returns loss and accuracy over iterations: every training batch, its running mean, and validation.

    Args:
        lines: those of metrics.jsonl; several phases are parted by dashed lines.
    """
    return _figure(lines, "step", "Iteration")


def epoch_figure(lines: Sequence[Line]) -> Figure:
    """Returns loss and accuracy over epochs: the mean over the batches of each epoch, and validation."""
    return _figure(lines, "epoch", "Epoch")


def _figure(lines: Sequence[Line], position: str, label: str) -> Figure:
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation"]
    with styled():
        figure = new_figure(WIDTH, 6.0)
        panels = figure.subplots(2, 1, sharex=True)
        for axes, name, title in zip(panels, ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
            axes.set_title(title)
            _draw_train(axes, train, name, position)
            _draw_validation(axes, validation, name, position)
            _draw_phases(axes, train, position)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlim(left=0)
            axes.margins(x=0.02)
        panels[1].set_xlabel(label)
        panels[0].set_ylim(bottom=0)
        panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panels[1].set_ylim(top=1.005)
        for axes in panels if len(_phase_starts(train)) > 1 else ():
            bottom, top = axes.get_ylim()
            axes.set_ylim(top=top + 0.12 * (top - bottom))  # the names of the phases stand there
        handles, labels = panels[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center")
        _tell_end(panels[0], lines)
    return figure


def _column(lines: Sequence[Line], name: str) -> np.ndarray:
    """Returns float64: a value of every line, NaN where it is missing or was not finite."""
    return np.array([np.nan if line.get(name) is None else line[name] for line in lines], dtype=np.float64)


def _draw_train(axes: Axes, train: Sequence[Line], name: str, position: str) -> None:
    if not train:
        return
    x, y = _column(train, position), _column(train, name)
    if position == "epoch":
        epochs, means = epoch_means(x, y)
        axes.plot(epochs, means, color=BLUE, marker="o", markersize=4, label="training, mean of the epoch")
        return
    axes.plot(x, y, color=BLUE, linewidth=0.8, alpha=0.35, label="training, each batch")
    window = max(1, len(y) // 12)
    if window > 1:
        axes.plot(x, running_mean(y, window), color=BLUE, label=f"training, mean of {window} batches")


def _draw_validation(axes: Axes, validation: Sequence[Line], name: str, position: str) -> None:
    if not validation:
        return
    x, y = _column(validation, position), _column(validation, name)
    axes.plot(x, y, color=ORANGE, linestyle="--", marker="s", markersize=3.5, linewidth=1.2, label="validation")
    best = [index for index, line in enumerate(validation) if line.get("best")]
    if best:
        axes.plot(
            x[best[-1]],
            y[best[-1]],
            linestyle="none",
            marker="o",
            markersize=10,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=1.2,
            label="best on validation",
        )


def _draw_phases(axes: Axes, train: Sequence[Line], position: str) -> None:
    """Parts phases by dashed lines, and names them if there are several."""
    starts = _phase_starts(train)
    if len(starts) < 2:
        return
    for index in starts:
        x = _column([train[index - 1]], position)[0] if index else 0.0
        if index:
            axes.axvline(x, color=GREY, linestyle=(0, (4, 3)), linewidth=1)
        axes.annotate(
            str(train[index].get("phase", "")),
            (x, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=SMALLEST_TEXT,
            color="#555555",
        )


def _phase_starts(train: Sequence[Line]) -> list[int]:
    return [i for i, line in enumerate(train) if i == 0 or line.get("phase") != train[i - 1].get("phase")]


def _tell_end(axes: Axes, lines: Sequence[Line]) -> None:
    ends = [line for line in lines if line["kind"] == "end"]
    if ends:
        told = f"{ENDINGS.get(ends[-1].get('reason'), 'ended')} at iteration {ends[-1]['step']}"
        axes.annotate(
            told,
            (1, 1),
            xycoords="axes fraction",
            xytext=(0, 6),
            textcoords="offset points",
            ha="right",
            fontsize=SMALLEST_TEXT,
            color="#555555",
        )


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Returns float64 [N]: the mean of the last `window` values at each place, fewer at the start; NaN is left out."""
    known = ~np.isnan(values)
    sums = np.cumsum(np.r_[0, np.where(known, values, 0)])
    counts = np.cumsum(np.r_[0, known])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(
            counts[ends] > counts[starts], (sums[ends] - sums[starts]) / (counts[ends] - counts[starts]), np.nan
        )


def epoch_means(epoch: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each epoch ended and the mean of the values logged within it, float64 [E] each.

    An epoch that was cut short ends where its last value was logged.

    Args:
        epoch: float64 [N], epochs passed at each value: 1.0 is the end of the first.
        values: float64 [N]; NaN is left out.
    """
    # Sums of fractions may pass a whole number by the last digit.
    passed = np.round(epoch, 6)
    number = np.ceil(passed)
    epochs = np.unique(number[~np.isnan(values)])
    ends = [float(passed[number == each].max()) for each in epochs]
    means = [float(np.nanmean(values[number == each])) for each in epochs]
    return np.array(ends), np.array(means)
