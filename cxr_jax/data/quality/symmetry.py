"""The axis of mirror symmetry of a chest: how far it is tilted and how symmetric the image is about it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

LARGEST_ANGLE = 24.0
"""Tilts up to this are looked for, in degrees either way."""

_SIDE = 64
_STEP = 2.0
_ANGLES = np.arange(-LARGEST_ANGLE, LARGEST_ANGLE + _STEP / 2, _STEP)
# The axis may lie up to an eighth of the side beside the middle.
_OFFSET = _SIDE // 8


@dataclass(frozen=True)
class Symmetry:
    """The best axis of an image."""

    angle: float  # degrees that the image is turned counter-clockwise from upright
    correlation: float  # of the image with its mirror image about that axis, -1 to 1; 0 without contrast


def _disc() -> np.ndarray:
    """Returns a disc with a soft edge, float32 [_SIDE, _SIDE]: nothing enters or leaves it when an image turns."""
    place = np.arange(_SIDE) - (_SIDE - 1) / 2
    radius = np.hypot(place[:, None], place[None, :]) / (_SIDE / 2)
    return np.clip((1 - radius) / 0.1, 0, 1).astype(np.float32)


_DISC = _disc()
_TURNS = [cv2.getRotationMatrix2D(((_SIDE - 1) / 2, (_SIDE - 1) / 2), -angle, 1) for angle in _ANGLES]


def find_symmetry(square: UInt8[np.ndarray, "S S"]) -> Symmetry:
    """Returns the axis about which a square image is most symmetric.

    The image, at 64 pixels and inside a disc, is turned back by every angle from -24 to 24 degrees in steps of 2, and
    correlated with its mirror image about every vertical axis within an eighth of the side from the middle (by rows,
    through the Fourier transform: Marola, IEEE PAMI 1989); a parabola through the best angle and its neighbours gives
    the fraction.

    Limits: it finds the symmetry of the picture, not of the patient. A large opacity in one lung, a turned patient or
    an arm in the picture move the axis by some degrees; beyond 24 degrees the answer means nothing.
    """
    small = cv2.resize(square, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    turned = np.stack([cv2.warpAffine(small, turn, (_SIDE, _SIDE), borderMode=cv2.BORDER_REPLICATE) for turn in _TURNS])
    mean = np.sum(turned * _DISC, axis=(1, 2), keepdims=True) / _DISC.sum()
    centred = (turned - mean) * _DISC  # [angles, rows, columns]
    energy = np.sum(centred**2, axis=(1, 2))
    if energy.min() < 1e-3:
        return Symmetry(0.0, 0.0)
    # A row convolved with itself is its product with its mirror image, one value for every axis.
    spectrum = np.fft.rfft(centred, 2 * _SIDE, axis=2)
    mirrored = np.fft.irfft(np.sum(spectrum**2, axis=1), 2 * _SIDE, axis=1)
    middle = _SIDE - 1
    best = mirrored[:, middle - 2 * _OFFSET : middle + 2 * _OFFSET + 1].max(axis=1) / energy
    top = int(np.argmax(best))
    return Symmetry(float(_ANGLES[top] + _STEP * _vertex(best, top)), float(np.clip(best[top], -1, 1)))


def _vertex(values: np.ndarray, top: int) -> float:
    """Returns where the parabola through the largest value and its neighbours peaks, in steps from `top`."""
    if top in (0, len(values) - 1):
        return 0.0
    before, here, after = values[top - 1 : top + 2]
    bend = before - 2 * here + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0
