"""One explained radiograph, in words and as a picture."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cxr_jax.data.decode import without_suffix
from cxr_jax.errors import printable
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, PNEUMONIA

_DOTS_PER_INCH = 100
_SMALLEST_TEXT, _LARGEST_TEXT = 11.0, 36.0  # pixels
_LETTER_WIDTH = 0.58  # of the text's height, an upper estimate for lines of DejaVu Sans


@dataclass(frozen=True)
class Case:
    """What a network called one radiograph, and where it saw the evidence for one class.

    Of findings that occur together it is about one of them. Where that is judged, `Mass` or `no Mass` is called.
    """

    file: str
    label: str | None  # the true class; None where it is unknown
    called: str
    probability: float  # of the class `scored`
    threshold: float | None  # from which that class is called; None where the highest probability is called
    explained: str  # the class whose evidence the heat map shows
    stage: str
    blank: bool  # the heat map is empty
    scored: str = CLASS_NAMES[PNEUMONIA]  # the class whose probability and threshold it is

    @property
    def is_wrong(self) -> bool:
        """True if the true class is known and was not called."""
        return self.label is not None and self.label != self.called

    def headline(self) -> str:
        """Returns the true and the predicted label in one line."""
        return f"true {self.label or 'unknown'}, called {self.called}"

    def sentences(self) -> list[str]:
        """Returns the caption of the picture: file, labels, what the colours show."""
        heat = f"Grad-CAM of {self.explained} at {self.stage}"
        if self.blank:
            heat += ": blank, nothing there speaks for this class"
        threshold = "" if self.threshold is None else f", threshold {self.threshold:.4f}"
        return [
            self.file,
            f"{self.headline()} (probability of {self.scored} {self.probability:.4f}{threshold})",
            heat,
            DISCLAIMER,
        ]


def picture_names(files: Sequence[str]) -> list[str]:
    """Returns a name for the picture of every file: its own without the ending, numbered where that is taken."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        stem = PurePosixPath(without_suffix(file)).name
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([stem], numbered) if name not in taken)
        taken.add(name)
        names.append(name)
    return names


def with_caption(picture: np.ndarray, lines: list[str]) -> np.ndarray:
    """Returns the picture, RGB uint8 `[H, W, 3]`, pixel by pixel, with lines of text in a black bar below it.

    The text is as large as suits the picture's width, and long lines are broken.
    """
    width = picture.shape[1]
    text_size = min(max(width / 55, _SMALLEST_TEXT), _LARGEST_TEXT)
    letters = max(int((width - 2 * text_size) / (_LETTER_WIDTH * text_size)), 1)
    broken = [part for line in lines for part in textwrap.wrap(printable(line), letters)]
    line_height = 1.45 * text_size
    height = round(line_height * (len(broken) + 0.9))
    figure = Figure(figsize=(width / _DOTS_PER_INCH, height / _DOTS_PER_INCH), dpi=_DOTS_PER_INCH, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    for number, line in enumerate(broken):
        figure.text(
            text_size / width,
            1 - line_height * (number + 0.45) / height,
            line,
            color="white",
            # Points are 1/72 inch. A dollar sign in a file name would begin a formula.
            fontsize=text_size * 72 / _DOTS_PER_INCH,
            parse_math=False,
            verticalalignment="top",
        )
    canvas.draw()
    bar = np.asarray(canvas.buffer_rgba())[:, :, :3]
    # The canvas rounds its size by itself.
    placed = np.zeros((height, width, 3), np.uint8)
    rows, columns = min(height, bar.shape[0]), min(width, bar.shape[1])
    placed[:rows, :columns] = bar[:rows, :columns]
    return np.concatenate([picture, placed])
