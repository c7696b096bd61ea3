"""The one look of every figure: sizes, colours that colour-blind readers can tell apart, and how figures are saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cxr_jax.runs.files import atomic_path

# Okabe & Ito's palette; the pairs used together also differ in lightness, so that they survive a grey print.
BLUE, ORANGE, GREEN, SKY, INK, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#222222", "#8A8A8A"

AMBER = "#E69F00"
"""The palette's orange for dark sheets."""

CLASS_COLOURS = (BLUE, ORANGE)
"""Colours of NORMAL and PNEUMONIA, by class index."""

TEST_COLOUR, VALIDATION_COLOUR = INK, GREEN

RESOLUTION = 200
"""Dots per inch of PNG files: a figure 6 inches wide has 1,200 dots."""

WIDTH = 4.0
"""Width of a figure in inches: two stand abreast on a desk's screen, and a phone shows one whole."""

SMALLEST_TEXT = 10.0
"""Size of the smallest text of a figure in points: 11 pixels where a figure of `WIDTH` fills a phone."""

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.fontsize": 10,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "auto",
    # a dollar sign in a name would begin a formula
    "text.parse_math": False,
    # Fixed, so that the same numbers give the same file.
    "svg.hashsalt": "cxr_jax",
    "text.color": INK,
    "xtick.color": "#555555",
    "xtick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.color": "#555555",
    "ytick.labelcolor": INK,
    "ytick.labelsize": 10,
}


_PALE = "#E7EAED"

ON_DARK: dict[str, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), _PALE),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), _PALE),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "#14171A"),
    "grid.color": "#343B42",
}
"""What a dark sheet changes."""


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Applies the look inside the block, on top of matplotlib's own defaults, and puts everything back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of that size in inches, drawn by Agg and unknown to pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def share_axes(axes: Axes, x: str, y: str) -> None:
    """Makes both axes run from 0 to 1 as a square, with these labels."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")


def save(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Writes `name`.png and `name`.svg into `folder`, atomically, and returns both paths.

    The figure is laid out once, for both files, and keeps its layout.

    Raises:
        UserError: they cannot be written.
    """
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in ("png", "svg")]
    with styled():
        # to lay it out takes most of the time, and savefig would do it anew for each file
        figure.set_dpi(RESOLUTION)
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], dpi=RESOLUTION, metadata=metadata)
    return paths
