"""Image quality and the baselines without a network as figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.judgement import Judgement
from cxr_jax.evaluation.quality import ImageQuality
from cxr_jax.reporting.quality import KINDS, title_of
from cxr_jax.reporting.style import BLUE, GREY, INK, ORANGE, VALIDATION_COLOUR, WIDTH, new_figure, save, styled
from cxr_jax.reporting.wording import counted

QUALITY_CAPTIONS = (
    (
        "quality",
        "Chance that a wrongly called image has a higher value than a rightly called one of its class, with its "
        "interval; filled where a difference is shown after correction for several measures.",
    ),
)
BASELINE_CAPTIONS = (
    (
        "baselines",
        "ROC-AUC on test of scores that need no network, with intervals, beside the network's; diamonds: validation.",
    ),
)


def draw_quality(folder: str | Path, quality: ImageQuality, judgement: Judgement) -> list[Path]:
    """Draws the figures into `folder` as PNG and SVG, and returns the paths; none shows a radiograph.

    Args:
        folder: made if need be; figures of the same name are replaced.
        quality: what is known of the images without the network.
        judgement: that of the network on the same images.

    Raises:
        UserError: a file cannot be written.
    """
    figures = {"quality": quality_figure(quality), "baselines": baselines_figure(quality, judgement)}
    return [path for name, figure in figures.items() for path in save(figure, folder, name)]


def quality_figure(quality: ImageQuality) -> Figure:
    """Returns, for both kinds of error side by side, the chance that an error has the higher value of every measure."""
    names = [name for name, told in quality.measures.items() if _varies(quality, name)]
    with styled():
        figure = new_figure(WIDTH, 0.6 * max(len(names), 3) + 2)
        panels = figure.subplots(2, 1, sharex=True)
        for axes, (kind, words), colour in zip(panels, KINDS.items(), (BLUE, ORANGE), strict=True):
            compared = quality.audit[kind]
            entries = [compared.measures.get(name) for name in names]
            for place, entry in enumerate(entries):
                # Without an interval a point would look like knowledge.
                if entry is not None and entry.higher.interval is not None:
                    shown = entry.verdict in ("higher", "lower")
                    _draw_interval(axes, place, entry.higher.value, entry.higher.interval, colour, shown)
            if not any(entry is not None and entry.higher.interval for entry in entries):
                axes.text(
                    0.5, 0.5, "too few to compare", transform=axes.transAxes, ha="center", backgroundcolor="white"
                )
            axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
            axes.set(xlim=(-0.02, 1.02))
            axes.set_title(f"{counted(compared.errors, words.plural)}\nbeside {counted(compared.right, 'right calls')}")
            _name_rows(axes, [quality.measures[name].title for name in names])
        panels[-1].set_xlabel("Chance of a higher value")
    return figure


def baselines_figure(quality: ImageQuality, judgement: Judgement) -> Figure:
    """Returns the ROC-AUC of every baseline on test and validation below that of the network."""
    rows = [("This network", judgement.test.metrics["roc_auc"], _validation_auc(judgement), INK)]
    for name, baseline in quality.baselines.items():
        if baseline is not None:
            rows.append((title_of(quality, name), baseline.test["roc_auc"], baseline.validation_roc_auc, BLUE))
    with styled():
        figure = new_figure(WIDTH, 0.3 * len(rows) + 1.4)
        axes = figure.subplots()
        for place, (_, measured, validation, colour) in enumerate(rows):
            if measured.value is not None:
                _draw_interval(axes, place, measured.value, measured.interval, colour, shown=True)
            if validation is not None:
                axes.plot(validation, place - 0.22, marker="D", markersize=3.5, color=VALIDATION_COLOUR)
        axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
        drawn = [measured for _, measured, _, _ in rows if measured.value is not None]
        ends = [measured.interval.low if measured.interval else measured.value for measured in drawn]
        lowest = min([0.47, *ends]) - 0.02
        axes.set(xlim=(max(lowest, 0), 1.01), xlabel="ROC-AUC")
        axes.plot((), (), marker="o", color=GREY, label="test")
        axes.plot((), (), marker="D", markersize=3.5, linestyle="none", color=VALIDATION_COLOUR, label="validation")
        # outside the axes: inside, its marks would be taken for those of a row
        figure.legend(loc="outside lower center", ncols=2)
        _name_rows(axes, [title for title, _, _, _ in rows])
    return figure


def _draw_interval(axes: Axes, place: float, value: float, interval: Interval | None, colour: str, shown: bool) -> None:
    """Draws a point with its interval on row `place`; hollow where nothing is shown."""
    if interval is not None:
        axes.plot((interval.low, interval.high), (place, place), color=colour, linewidth=1.3)
    face = colour if shown else "white"
    axes.plot(value, place, marker="o", markersize=5.5, color=colour, markerfacecolor=face)


def _name_rows(axes: Axes, titles: list[str]) -> None:
    axes.set_yticks(np.arange(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _validation_auc(judgement: Judgement) -> float | None:
    validation = judgement.validation
    return None if validation is None else validation.metrics["roc_auc"].value


def _varies(quality: ImageQuality, name: str) -> bool:
    """Returns whether a measure differs between test images of one class."""
    return any(compared.measures.get(name) is not None for compared in quality.audit.values())
