"""A page of explained cases: every radiograph beside its overlay."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from cxr_jax.errors import printable
from cxr_jax.explain.case import Case
from cxr_jax.explain.overlay import HOTTEST_COLOUR
from cxr_jax.runs import gallery
from cxr_jax.vocabulary import CLASS_NAMES, PNEUMONIA

MOST_TILES = 24
"""How many cases fit on one page."""

_THUMBNAIL = 520
"""Longer side of a picture on the page, in pixels."""

# Lengths on the page are in inches.
_MARGIN, _GAP, _PAIR_GAP = 0.3, 0.3, 0.05
_PICTURE_WIDTH, _LONE_PICTURE_WIDTH = 2.0, 3.6
_TITLE_HEIGHT, _HEADLINE_HEIGHT, _FOOT_HEIGHT = 0.45, 0.42, 0.7
_GROUP_HEIGHT = 0.32
_SCALE_WIDTH = 1.9

_INK, _PALE, _WRONG = "#222222", "#666666", "#B03A00"


class Tile(NamedTuple):
    """One case as it stands on the page."""

    case: Case
    grey: np.ndarray  # uint8 [h, w]
    overlay: np.ndarray  # RGB uint8 [h, w, 3]


def make_tile(case: Case, grey: np.ndarray, overlay: np.ndarray) -> Tile:
    """Returns a case with its pictures, uint8 `[H, W]` and `[H, W, 3]`, made small enough for the page."""
    return Tile(case, *(gallery.shrunk(picture, _THUMBNAIL) for picture in (grey, overlay)))


class Group(NamedTuple):
    """Cases that stand together under a heading."""

    heading: str  # empty: none is drawn
    tiles: Sequence[Tile]  # may be empty where there is a heading


def draw_groups(groups: Sequence[Group], title: str, notes: Sequence[str]) -> Figure:
    """Returns a page with 1 to MOST_TILES cases, those of every group under its heading.

    The title stands above, a colour scale and notes below.

    Raises:
        ValueError: there are no cases, or too many for a page.
    """
    count = sum(len(group.tiles) for group in groups)
    if not 1 <= count <= MOST_TILES:
        raise ValueError(f"{count} cases do not fit on a page of 1 to {MOST_TILES}")
    most = max(len(group.tiles) for group in groups)
    columns = most if most <= 2 else 2 if most == 4 else 3
    picture_width = _PICTURE_WIDTH if columns > 1 else _LONE_PICTURE_WIDTH
    lines = [line for group in groups for line in _lines_of(group, columns, picture_width)]
    tile_width = 2 * picture_width + _PAIR_GAP
    page = _Page(
        2 * _MARGIN + columns * tile_width + (columns - 1) * _GAP,
        2 * _MARGIN + _TITLE_HEIGHT + sum(line.height for line in lines) + _FOOT_HEIGHT,
    )
    page.write(_MARGIN, _MARGIN, title, size=11, weight="bold", width=page.width - 2 * _MARGIN)
    top = _MARGIN + _TITLE_HEIGHT
    for line in lines:
        if line.heading:
            page.write(_MARGIN, top, line.heading, size=9.5, weight="bold", width=page.width - 2 * _MARGIN)
        below = top + (_GROUP_HEIGHT if line.heading else 0)
        for column, tile in enumerate(line.tiles):
            left = _MARGIN + column * (tile_width + _GAP)
            _draw_tile(page, tile, left, below, picture_width, line.picture_height)
        top += line.height
    _draw_foot(page, notes)
    return page.figure


def gallery_of(groups: Sequence[Group], title: str) -> gallery.Gallery:
    """Returns the same cases for a report, the pictures apart from their words."""
    return gallery.Gallery(
        title, tuple(gallery.Group(group.heading, tuple(map(_gallery_tile, group.tiles))) for group in groups)
    )


def _gallery_tile(tile: Tile) -> gallery.Tile:
    case = tile.case
    blank = f"blank: nothing at {case.stage} speaks for {case.explained}"
    return gallery.Tile(
        file=case.file,
        label=case.label,
        called=case.called,
        probability=case.probability,
        pictures=tuple(gallery.encode_picture(picture) for picture in (tile.grey, tile.overlay)),
        told=blank if case.blank else f"evidence for {case.explained}",
        asked=_asked(case),
    )


def _asked(case: Case) -> str:
    """Returns the finding that a case is about; empty for PNEUMONIA, which has words of its own."""
    return "" if case.scored == CLASS_NAMES[PNEUMONIA] else case.scored


class _Line(NamedTuple):
    """What stands side by side on the page, under the heading that begins a group."""

    heading: str
    tiles: Sequence[Tile]
    picture_height: float

    @property
    def height(self) -> float:
        """Height on the page, the gap below included."""
        pictures = _HEADLINE_HEIGHT + self.picture_height + _GAP if self.tiles else 0
        return (_GROUP_HEIGHT if self.heading else 0) + pictures


def _lines_of(group: Group, columns: int, picture_width: float) -> list[_Line]:
    """Returns the lines of a group, the first with its heading."""
    parts = [group.tiles[start : start + columns] for start in range(0, max(len(group.tiles), 1), columns)]
    return [
        _Line("" if number else group.heading, part, _picture_height(part, picture_width) if part else 0)
        for number, part in enumerate(parts)
    ]


class _Page:
    """A figure on which things are placed by inches from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Returns axes without ticks and frame in this box."""
        bottom = self.height - top - height
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.axis("off")
        return axes

    def write(self, left: float, top: float, text: str, *, size: float, width: float, **style: str) -> None:
        """Writes text below and to the right of a point, broken into lines of at most `width`."""
        # A letter of DejaVu Sans is on average a little wider than half its size; points are 1/72 inch.
        letters = max(int(width * 72 / (0.58 * size)), 10)
        text = "\n".join(part for line in text.split("\n") for part in textwrap.wrap(printable(line), letters))
        place = (left / self.width, 1 - top / self.height)
        self.figure.text(*place, text, fontsize=size, parse_math=False, verticalalignment="top", **style)


def _picture_height(tiles: Sequence[Tile], width: float) -> float:
    """Returns the height of the highest picture of a row, each `width` wide; a narrow strip may not stretch the
    page.
    """
    return width * min(max(tile.grey.shape[0] / tile.grey.shape[1] for tile in tiles), 1.25)


def _draw_tile(page: _Page, tile: Tile, left: float, top: float, width: float, height: float) -> None:
    """Draws one case: labels, file name, radiograph and overlay."""
    case = tile.case
    colour = _WRONG if case.is_wrong else _INK
    headline = f"{case.headline()}, {gallery.chance_text(case.probability, _asked(case))}"
    page.write(left, top, headline, size=8.5, width=9, color=colour, weight="bold")
    heat = f"{case.explained}{' (blank)' if case.blank else ''}"
    page.write(left, top + 0.17, _shortened(PurePosixPath(case.file).name), size=7.5, width=9, color=_PALE)
    page.write(left + width + _PAIR_GAP, top + 0.17, f"evidence for {heat}", size=7.5, width=9, color=_PALE)
    for column, picture in enumerate((tile.grey, tile.overlay)):
        axes = page.axes(left + column * (width + _PAIR_GAP), top + _HEADLINE_HEIGHT - 0.06, width, height)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.set_anchor("NW")


def _draw_foot(page: _Page, notes: Sequence[str]) -> None:
    """Draws the colour scale and the notes beside it."""
    top = page.height - _MARGIN - _FOOT_HEIGHT + 0.1
    colours = matplotlib.colormaps["inferno"](np.linspace(0, HOTTEST_COLOUR / 255, 256))
    bar = page.figure.colorbar(
        ScalarMappable(Normalize(0, 1), ListedColormap(colours)),
        cax=page.axes(_MARGIN, top, _SCALE_WIDTH, 0.13),
        orientation="horizontal",
    )
    bar.set_ticks([])
    bar.outline.set_visible(False)
    page.write(_MARGIN, top + 0.17, "no evidence", size=7, width=2, color=_PALE)
    end = _MARGIN + _SCALE_WIDTH - 0.72
    page.write(end, top + 0.17, "most in image", size=7, width=2, color=_PALE)
    left = _MARGIN + _SCALE_WIDTH + _GAP
    page.write(left, top - 0.03, "\n".join(notes), size=7.5, width=page.width - left - _MARGIN, color=_PALE)


def _shortened(name: str, longest: int = 30) -> str:
    """Returns a file name of at most `longest` letters, its middle left out if need be."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"
