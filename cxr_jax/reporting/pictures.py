"""Figures that show radiographs: a grid of predictions, and the failure cases. They stay in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.evaluation.cases import calls_of, confidence_of
from cxr_jax.reporting.style import BLUE, GREY, ORANGE, new_figure, save, styled
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import CLASS_NAMES, PNEUMONIA

NAMES = ("predictions_grid", "failure_cases")
"""Names of the figures that show radiographs; no file of these names may be published with results."""

_COLUMNS = 6


def draw_pictures(
    folder: str | Path, images: np.ndarray, predictions: Predictions, threshold: float, *, phantoms: bool
) -> list[Path]:
    """Draw the grid of predictions and, if there are errors, the failure cases into `folder`; return the paths.

    Args:
        folder: made if need be; figures of the same name are replaced.
        images: uint8 [N, S, S] in 0..255, row for row those of `predictions`; may be memory-mapped.
        predictions: what was predicted on them.
        threshold: an image is called PNEUMONIA if its probability is at least this.
        phantoms: the images are drawn by a program and show no patient; every tile is marked so.

    Raises:
        UserError: a file cannot be written.
    """
    paths = save(predictions_figure(images, predictions, threshold, phantoms=phantoms), folder, NAMES[0])
    failures = failures_figure(images, predictions, threshold, phantoms=phantoms)
    return paths if failures is None else paths + save(failures, folder, NAMES[1])


def predictions_figure(
    images: np.ndarray, predictions: Predictions, threshold: float, *, phantoms: bool, count: int = 24, seed: int = 0
) -> Figure:
    """Return up to `count` images with their true and called class, drawn by lot: a fair look, errors included."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(predictions))[:count])
    rows = [chosen[start : start + _COLUMNS] for start in range(0, len(chosen), _COLUMNS)]
    return _tiles(images, predictions, threshold, rows, [""] * len(rows), phantoms)


def failures_figure(
    images: np.ndarray, predictions: Predictions, threshold: float, *, phantoms: bool, count: int = 12
) -> Figure | None:
    """Return the errors furthest from the threshold, up to `count` of either kind; None if there is no error."""
    called = calls_of(predictions.probability, threshold)
    confidence = confidence_of(predictions.probability, threshold)
    rows: list[np.ndarray] = []
    titles: list[str] = []
    for wrongly, kind in ((True, "NORMAL called PNEUMONIA"), (False, "PNEUMONIA called NORMAL")):
        found = np.flatnonzero((called == wrongly) & ((predictions.label == PNEUMONIA) != wrongly))
        worst = sorted(found, key=lambda row: (-confidence[row], predictions.file[row]))[:count]
        for start in range(0, len(worst), _COLUMNS):
            rows.append(np.array(worst[start : start + _COLUMNS]))
            titles.append("" if start else f"{kind}: {len(found)}, the furthest from the threshold first")
    return _tiles(images, predictions, threshold, rows, titles, phantoms) if rows else None


def _tiles(
    images: np.ndarray,
    predictions: Predictions,
    threshold: float,
    rows: Sequence[np.ndarray],
    titles: Sequence[str],
    phantoms: bool,
) -> Figure:
    """Return a figure with one row of tiles for every array of indices, titled where a title is given."""
    with styled():
        figure = new_figure(8.2, 1.72 * len(rows) + 0.22 * sum(bool(title) for title in titles) + 0.35)
        strips = figure.subfigures(len(rows) + 1, 1, squeeze=False, height_ratios=[1.72] * len(rows) + [0.35])[:, 0]
        for strip, row, title in zip(strips, rows, titles, strict=False):
            if title:
                strip.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
            panels = strip.subplots(1, _COLUMNS)
            for axes in panels:
                axes.set_axis_off()
            for axes, index in zip(panels, row, strict=False):
                _draw_tile(axes, np.asarray(images[index]), predictions, int(index), threshold, phantoms)
        origin = "Phantoms: drawn by a program, no patients. " if phantoms else ""
        told = f"{origin}Numbers are probabilities of PNEUMONIA; the threshold is {threshold:.3g}."
        strips[-1].text(0.01, 0.4, told, fontsize=7.5, color="#555555")
    return figure


def _draw_tile(
    axes: Axes, image: np.ndarray, predictions: Predictions, index: int, threshold: float, phantoms: bool
) -> None:
    """Draw one image; errors have a thick orange frame and a cross, so that they show without colour too."""
    probability = predictions.probability[index]
    label = predictions.label[index]
    called = int(calls_of(probability, threshold))
    right = called == label
    axes.set_axis_on()
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=(), yticks=())
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=BLUE if right else ORANGE, linewidth=1.2 if right else 2.6)
    mark = "✓" if right else "✗"
    axes.set_title(
        f"{mark} true {CLASS_NAMES[label]}\ncalled {CLASS_NAMES[called]} {probability:.2f}",
        fontsize=6.6,
        fontweight="normal" if right else "bold",
        color=BLUE if right else ORANGE,
        pad=3,
    )
    if phantoms:
        axes.text(
            0.5,
            0.02,
            "PHANTOM",
            transform=axes.transAxes,
            ha="center",
            va="bottom",
            fontsize=6,
            color="white",
            bbox={"facecolor": "black", "alpha": 0.6, "pad": 1, "edgecolor": GREY, "linewidth": 0},
        )
