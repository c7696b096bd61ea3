"""Quality of one image: exposure, sharpness, rotation and markers, each a number with a definition and a unit.

All except the size are measured on the image squashed to one size. A file of 224 pixels can then be compared with its
original of 2,000, whatever size a network sees. The aspect ratio is given up there: a tilt in a wide image looks larger
than it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from cxr_jax.data.decode import to_square
from cxr_jax.data.quality.markers import find_markers, marker_zone
from cxr_jax.data.quality.symmetry import find_symmetry

VERSION = 1
"""Raised when a measure changes, so that numbers of an older definition are computed anew."""

SIDE = 224
"""Side of the square that is measured, in pixels."""

DARKEST, BRIGHTEST = 5, 250
"""Grey levels at and beyond which a pixel counts as clipped: JPEG moves the ends of the scale by a few levels."""

BRIGHT = 204
"""Four fifths of the full scale: from here on an area looks washed out."""

# At half the size, because JPEG at 224 pixels has lost much of what is finer, and the original has not.
_SHARPNESS_SIDE = SIDE // 2
# Letters and collimator edges stand near the border and are sharp in any image.
_INNER = slice(round(0.1 * _SHARPNESS_SIDE), round(0.9 * _SHARPNESS_SIDE))


_HALO = np.ones((5, 5), np.uint8)


@dataclass(frozen=True)
class QualityMeasure:
    """What a reader must know of a measure."""

    title: str
    unit: str  # empty for plain numbers
    definition: str
    suspicious: tuple[str, ...] = ("low", "high")  # ends at which an unusual value is worth a remark


MEASURES: dict[str, QualityMeasure] = {
    "mean": QualityMeasure("Mean brightness", "grey levels", "mean of all pixels, 0 black to 255 white"),
    "contrast": QualityMeasure("Contrast", "grey levels", "standard deviation of all pixels (Peli, JOSA A 1990)"),
    "bright_area": QualityMeasure(
        "Bright area",
        "share",
        f"pixels at or above {BRIGHT} of 255, markers left out: looks washed out",
        ("high",),
    ),
    "bright_clipped": QualityMeasure(
        "Clipped bright", "share", f"pixels at or above {BRIGHTEST} of 255, markers left out", ("high",)
    ),
    "dark_clipped": QualityMeasure("Clipped dark", "share", f"pixels at or below {DARKEST} of 255", ("high",)),
    "sharpness": QualityMeasure(
        "Sharpness",
        "",
        "variance of the Laplacian over variance, inner 80 % at 112 pixels: low is blurred, noise counts as sharp "
        "(after Pech-Pacheco et al., ICPR 2000)",
    ),
    "rotation": QualityMeasure(
        "Rotation", "degrees", "tilt of the axis of mirror symmetry, either way, up to 24", ("high",)
    ),
    "symmetry": QualityMeasure(
        "Mirror symmetry", "", "correlation of the image with its mirror image about that axis, -1 to 1", ("low",)
    ),
    "border_markers": QualityMeasure(
        "Border markers", "share", "bright small signs such as letters, in the outer fifth", ("high",)
    ),
    # The network sees a square whatever the file was, so that its size alone is no reason for distrust.
    "pixels": QualityMeasure("Image size", "pixels", "width times height of the file", ()),
    "aspect": QualityMeasure("Aspect ratio", "", "width over height of the file", ()),
}
"""Every measure, in the order of a report."""


def measure_quality(grey: UInt8[np.ndarray, "H W"]) -> dict[str, float]:
    """Returns every one of `MEASURES` of a decoded image, uint8 [H, W] in 0..255 at the size of its file.

    All are finite; of an image without any contrast, sharpness, rotation and symmetry are 0.
    """
    height, width = grey.shape
    square = to_square(grey, SIDE)
    symmetry = find_symmetry(square)
    markers = find_markers(square)
    # Letters are as bright as film can be; they must not pass for over-exposure.
    picture = square[cv2.dilate(markers.astype(np.uint8), _HALO) == 0]
    return {
        "mean": float(square.mean()),
        "contrast": float(square.std()),
        "bright_area": float(np.mean(picture >= BRIGHT)),
        "bright_clipped": float(np.mean(picture >= BRIGHTEST)),
        "dark_clipped": float(np.mean(square <= DARKEST)),
        "sharpness": sharpness(square),
        "rotation": abs(symmetry.angle),
        "symmetry": symmetry.correlation,
        "border_markers": float(markers.sum() / marker_zone(SIDE).sum()),
        "pixels": float(width * height),
        "aspect": width / height,
    }


def sharpness(square: UInt8[np.ndarray, "S S"]) -> float:
    """Returns the variance of the Laplacian over the variance, both of the inner 80 % of a square at 112 pixels.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000. The division makes it independent
    of brightness and contrast. It cannot tell detail from noise. 0 for an image without contrast.
    """
    small = cv2.resize(square, (_SHARPNESS_SIDE, _SHARPNESS_SIDE), interpolation=cv2.INTER_AREA)
    inner = small[_INNER, _INNER].astype(np.float32)
    variance = float(inner.var())
    return float(cv2.Laplacian(inner, cv2.CV_32F).var()) / variance if variance > 0 else 0.0
