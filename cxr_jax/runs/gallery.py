"""Radiographs of a run that stand in its report, each with what was called, in one file beside the sheet of them all.

The pictures are apart from their words, so that a report can lay them out for a screen of any width. Such a file shows
radiographs: it stays in the run folder.
"""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import read_record
from cxr_jax.vocabulary import PNEUMONIA_CHANCE

SCHEMA_VERSION = 1

_LONGEST_SIDE = 384
"""Longer side of a picture, in pixels."""

_QUALITY = 92
"""Of the JPEG files, 0 to 100."""


@dataclass(frozen=True)
class Tile:
    """One radiograph, and what was called."""

    file: str
    label: str | None  # the true class; None where it is unknown
    called: str
    probability: float  # of the class that is asked about
    pictures: tuple[str, ...]  # JPEG files in base64: the radiograph, and if it was explained its overlay
    told: str = ""  # what the overlay shows
    asked: str = ""  # the finding whose probability it is; empty for PNEUMONIA

    def __post_init__(self) -> None:
        """Refuses pictures that are not in base64."""
        for picture in self.pictures:
            base64.b64decode(picture, validate=True)

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return PurePosixPath(self.file).name

    @property
    def is_wrong(self) -> bool:
        """True if the true class is known and was not called."""
        return self.label is not None and self.label != self.called

    @property
    def chance(self) -> str:
        """The probability in words."""
        return chance_text(self.probability, self.asked)


@dataclass(frozen=True)
class Group:
    """Tiles under a heading, which may be empty."""

    heading: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Gallery:
    """All that is shown together."""

    title: str
    groups: tuple[Group, ...]


def chance_text(probability: float, asked: str = "") -> str:
    """Returns a probability of PNEUMONIA as `P(pneumonia) 7 %`, or of a finding that is asked about; only the surest
    have more digits.
    """
    percent = 100 * probability
    if 1 <= percent <= 99:
        text = f"{percent:.0f}"
    elif percent < 0.1 or percent > 99.9:
        text = "under 0.1" if percent < 0.1 else "over 99.9"
    else:
        text = f"{percent:.1f}"
    return f"{f'P({asked})' if asked else PNEUMONIA_CHANCE} {text} %"


def shrunk(picture: np.ndarray, longest_side: int) -> np.ndarray:
    """Returns a picture, uint8 `[H, W]` or `[H, W, 3]`, with no side above `longest_side` pixels, in its own shape."""
    import cv2

    height, width = picture.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def encode_picture(picture: np.ndarray) -> str:
    """Returns a picture, uint8 `[H, W]` grey or `[H, W, 3]` RGB, as a JPEG file in base64, made smaller if need be."""
    import cv2

    picture = shrunk(picture, _LONGEST_SIDE)
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return base64.b64encode(encoded.tobytes()).decode()


def gallery_path(sheet: Path) -> Path:
    """Returns where the gallery of a sheet, a PNG file of all its pictures, lies."""
    return sheet.with_name(f"{sheet.stem}.gallery.json")


def write_gallery(sheet: Path, gallery: Gallery) -> Path:
    """Stores what `sheet` shows beside it, in place of an older one, and returns where.

    Raises:
        UserError: it cannot be written.
    """
    path = gallery_path(sheet)
    write_json(path, {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(gallery)})
    return path


def read_gallery(sheet: Path) -> Gallery | None:
    """Returns what `sheet` shows, or None where nothing is stored beside it.

    Raises:
        UserError: it is damaged, or another version wrote it.
    """
    path = gallery_path(sheet)
    if not path.is_file():
        return None
    advice = "delete it, or make it again"
    return read_record(path, Gallery, version=SCHEMA_VERSION, where="gallery", advice=advice)
