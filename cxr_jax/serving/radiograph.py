"""One file as the network will see it, with what a reader should know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_jax.data.decode import decode, decode_square
from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.data.lung_boxes import crop_to_lungs
from cxr_jax.data.quality.reference import QualityReference
from cxr_jax.errors import UserError
from cxr_jax.images.clarity import clarified
from cxr_jax.runs.description import NetworkDescription

LARGEST_ASPECT = 2.5
"""Longer to shorter side; narrow crops of a chest reach 2."""

SMALLEST_CONTRAST = 10.0
"""Standard deviation in grey levels; the faintest radiographs of the official data set have 23."""

LARGEST_COLOUR = 6.0
"""Mean difference of the colour channels in grey levels; radiographs stored in colour differ by what JPEG adds."""


@dataclass(frozen=True)
class Radiograph:
    """A decoded image at its own size and as the square that a network is given."""

    grey: np.ndarray  # uint8 [H, W], 0..255
    squares: tuple[np.ndarray, ...]  # uint8 [S, S], 0..255, one for each network that will see it
    warnings: tuple[str, ...]  # reasons to distrust a prediction on it; empty for a usual image
    unlike: tuple[str, ...] = ()  # measures of quality by which it lies outside the usual range of the training images

    @property
    def square(self) -> np.ndarray:
        """The square of the first network, or of the only one."""
        return self.squares[0]


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
        UserError: as `require_file`, or it may not be read.
    """
    require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def require_file(path: Path) -> None:
    """Finds mistakes about a file without reading it.

    Raises:
        UserError: there is no such file, it is a folder or something else, or is larger than images may be.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: name the files in it, such as {path}/*.jpeg")
        if not path.exists():
            raise UserError(f"{path} does not exist")
        if not path.is_file():
            raise UserError(f"{path} is no regular file")
        if path.stat().st_size > MAX_BYTES:
            size = path.stat().st_size / 2**20
            raise UserError(f"{path} has {size:.0f} MiB; images may have up to {MAX_BYTES // 2**20} MiB")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be read: {reason}") from error


def read_radiograph(
    data: bytes,
    name: str,
    descriptions: NetworkDescription | Sequence[NetworkDescription],
    reference: QualityReference | None = None,
) -> Radiograph:
    """Decodes an image and resizes it as the training images of each network were.

    Args:
        data: the encoded image.
        name: what to call it in an error.
        descriptions: of the network that will see it, or of several.
        reference: what the run's training images look like; without it the warnings know only what holds for every
            radiograph.

    Raises:
        UserError: it is no JPEG, PNG or DICOM file, is damaged, or is too large.
    """
    decoded = decode(data, name=name)
    of_each = [descriptions] if isinstance(descriptions, NetworkDescription) else descriptions
    ways = [((entry.image_size, entry.resize, entry.interpolation), entry.clarify) for entry in of_each]
    # networks that see the same square share it
    squares = {
        (resizing, clarity): clarified(decode_square(data, *resizing, name=name, decoded=decoded), clarity)
        for resizing, clarity in set(ways)
    }
    seen = (
        squares[way] if entry.lung_boxes is None else crop_to_lungs(squares[way], entry.lung_boxes)
        for entry, way in zip(of_each, ways, strict=True)
    )
    warnings = _warnings(decoded.grey, max(entry.image_size for entry in of_each))
    if decoded.remark is not None:
        warnings.append(decoded.remark)
    if decoded.colourfulness > LARGEST_COLOUR:
        warnings.append("a colour image: radiographs are grey, this may not be one")
    remarks = {} if reference is None else reference.remarks(decoded.grey)
    warnings += remarks.values()
    return Radiograph(decoded.grey, tuple(seen), tuple(warnings), tuple(remarks))


def _warnings(grey: np.ndarray, size: int) -> list[str]:
    height, width = grey.shape
    warnings = []
    if min(height, width) < size:
        warnings.append(f"{width} x {height} pixels, enlarged to the {size} that the network sees: detail is missing")
    if max(height, width) > LARGEST_ASPECT * min(height, width):
        warnings.append(f"{width} x {height} pixels is an unusual shape for a chest radiograph")
    if float(grey.std()) < SMALLEST_CONTRAST:
        warnings.append("hardly any contrast: this may not be a radiograph")
    return warnings
