"""Figures that show radiographs: a grid of predictions, and the failure cases. They stay in the run folder."""

from __future__ import annotations

import textwrap
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.errors import printable
from cxr_jax.evaluation.cases import calls_of, confidence_of
from cxr_jax.reporting.style import BLUE, GREY, ORANGE, SMALLEST_TEXT, new_figure, save, styled
from cxr_jax.runs.gallery import Gallery, Group, Tile, chance_text, encode_picture, gallery_path, write_gallery
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import CLASS_NAMES, PNEUMONIA, PNEUMONIA_CHANCE

NAMES = ("predictions_grid", "failure_cases")
"""Names of the figures that show radiographs; no file of these names may be published with results."""

_COLUMNS = 4
_TILE_WIDTH, _TILE_HEIGHT = 1.9, 2.45


def draw_pictures(
    folder: str | Path, images: np.ndarray, predictions: Predictions, threshold: float, *, phantoms: bool
) -> list[Path]:
    """Draws the grid of predictions and the failure cases into `folder`, each as PNG and SVG and as a gallery.

    What an earlier evaluation drew is replaced, and removed where there is no error to show.

    Args:
        folder: made if need be.
        images: uint8 [N, S, S] in 0..255, row for row those of `predictions`; may be memory-mapped.
        predictions: what was predicted on them.
        threshold: an image is called PNEUMONIA if its probability is at least this.
        phantoms: the images are drawn by a program and show no patient; every tile is marked so.

    Returns:
        The paths that were written.

    Raises:
        UserError: a file cannot be written.
    """
    shown = (predictions_drawn(predictions), failures_of(predictions, threshold))
    paths = []
    for name, rows in zip(NAMES, shown, strict=True):
        sheet = Path(folder) / f"{name}.png"
        if not rows:
            for stale in (sheet, sheet.with_suffix(".svg"), gallery_path(sheet)):
                stale.unlink(missing_ok=True)
            continue
        paths += save(sheet_of(images, predictions, threshold, rows, phantoms=phantoms), folder, name)
        paths.append(write_gallery(sheet, _gallery(name, images, predictions, threshold, rows)))
    return paths


Shown = list[tuple[str, np.ndarray]]
"""What a sheet shows: headings, each with the rows of its images."""


def predictions_drawn(predictions: Predictions, count: int = 24, seed: int = 0) -> Shown:
    """Returns up to `count` rows drawn by lot: a fair look, errors included."""
    return [("", np.sort(np.random.default_rng(seed).permutation(len(predictions))[:count]))]


def failures_of(predictions: Predictions, threshold: float, count: int = 12) -> Shown:
    """Returns the rows of the errors furthest from the threshold, up to `count` of either kind; empty without
    errors.
    """
    called = calls_of(predictions.probability, threshold)
    confidence = confidence_of(predictions.probability, threshold)
    shown = []
    for wrongly, kind in ((True, "NORMAL called PNEUMONIA"), (False, "PNEUMONIA called NORMAL")):
        found = np.flatnonzero((called == wrongly) & ((predictions.label == PNEUMONIA) != wrongly))
        worst = sorted(found, key=lambda row: (-confidence[row], predictions.file[row]))[:count]
        if worst:
            order = ", the furthest from the threshold first" if len(found) > 1 else ""
            shown.append((f"{kind}: {len(found):,}{order}", np.array(worst)))
    return shown


def _gallery(name: str, images: np.ndarray, predictions: Predictions, threshold: float, shown: Shown) -> Gallery:
    """Returns the same as a sheet for a report, the pictures apart from their words."""
    groups = [
        Group(
            heading,
            tuple(
                Tile(
                    file=predictions.file[row],
                    label=CLASS_NAMES[predictions.label[row]],
                    called=_called(predictions, row, threshold),
                    probability=float(predictions.probability[row]),
                    pictures=(encode_picture(np.asarray(images[row])),),
                )
                for row in rows
            ),
        )
        for heading, rows in shown
    ]
    return Gallery(name, tuple(groups))


def sheet_of(images: np.ndarray, predictions: Predictions, threshold: float, shown: Shown, *, phantoms: bool) -> Figure:
    """Returns a figure of these images with their true and called classes; arguments as in `draw_pictures`."""
    lines = [
        (heading if start == 0 else "", rows[start : start + _COLUMNS])
        for heading, rows in shown
        for start in range(0, len(rows), _COLUMNS)
    ]
    heights = [_TILE_HEIGHT + (0.3 if heading else 0) for heading, _ in lines] + [0.4]
    with styled():
        figure = new_figure(_COLUMNS * _TILE_WIDTH, sum(heights))
        strips = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for strip, (heading, rows) in zip(strips, lines, strict=False):
            if heading:
                strip.suptitle(heading, x=0.01, ha="left", fontsize=11, fontweight="bold")
            panels = strip.subplots(1, _COLUMNS)
            for axes in panels:
                axes.set_axis_off()
            for axes, row in zip(panels, rows, strict=False):
                _draw_tile(axes, np.asarray(images[row]), predictions, int(row), threshold, phantoms)
        origin = "Phantoms: drawn by a program, no patients. " if phantoms else ""
        told = f"{origin}An image is called PNEUMONIA from {PNEUMONIA_CHANCE} {threshold:.1%} on."
        strips[-1].text(0.01, 0.4, told, fontsize=SMALLEST_TEXT, color="#555555")
    return figure


def _called(predictions: Predictions, row: int, threshold: float) -> str:
    return CLASS_NAMES[int(calls_of(predictions.probability[row], threshold))]


def _draw_tile(
    axes: Axes, image: np.ndarray, predictions: Predictions, index: int, threshold: float, phantoms: bool
) -> None:
    """Draws one image; errors have a thick orange frame and a cross, so that they show without colour too."""
    true, called = CLASS_NAMES[predictions.label[index]], _called(predictions, index, threshold)
    right = called == true
    axes.set_axis_on()
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=(), yticks=())
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=BLUE if right else ORANGE, linewidth=1.2 if right else 2.6)
    mark = "✓" if right else "✗"
    axes.set_title(
        f"{mark} {true}" if right else f"{mark} {true},\ncalled {called}",
        fontsize=SMALLEST_TEXT,
        fontweight="normal" if right else "bold",
        color=BLUE if right else ORANGE,
        pad=3,
    )
    name = "\n".join(textwrap.wrap(printable(PurePosixPath(predictions.file[index]).name), 22))
    axes.set_xlabel(f"{chance_text(predictions.probability[index])}\n{name}", fontsize=SMALLEST_TEXT, parse_math=False)
    if phantoms:
        axes.text(
            0.5,
            0.02,
            "PHANTOM",
            transform=axes.transAxes,
            ha="center",
            va="bottom",
            fontsize=SMALLEST_TEXT,
            color="white",
            bbox={"facecolor": "black", "alpha": 0.6, "pad": 1, "edgecolor": GREY, "linewidth": 0},
        )
