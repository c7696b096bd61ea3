"""A coarse lung field found without a network: one outline, moved and stretched to where an image is dark.

The field is what lies between the outer walls of both lungs, from apex to diaphragm, with heart and spine between them:
pneumonia can hide behind the heart. Its outline has one shape and four measures (middle, top, bottom, half width). Of a
grid of such outlines the one is taken whose two sides are darkest against the rim around them and the middle between
them (the correlation of image and template), less a penalty for measures far from those of a usual chest.

Limits: the outline is symmetric and upright; it follows neither the heart nor a raised diaphragm on one side; it was
made for frontal radiographs that show the whole chest. A lung that is white from top to bottom leaves only the other
one and the penalty to go by, which is why the outline can move but not shrink to what is dark: a consolidation stays
inside the field. On phantoms, where the drawn lungs are known, field and lungs overlap with a Dice coefficient of
about 0.92 on average and 0.7 in the worst of 60 images. It is good for a share of attention, not for measuring a lung.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

_SIDE = 56
"""Side in pixels of the images that outlines are fitted to."""

_PENALTY = 0.02
"""What a measure one deviation away from the usual costs, in units of correlation."""


class Outline(NamedTuple):
    """The measures of one lung field, as shares of the image's side."""

    middle: float  # column
    top: float  # row of the apices
    bottom: float  # row of the lowest lung, at the outer walls
    half_width: float  # of the chest at its widest


USUAL = Outline(0.5, 0.12, 0.86, 0.36)
"""Measures of a usual chest in a frontal radiograph of a child, collimated to the trunk."""

_DEVIATION = Outline(0.04, 0.05, 0.06, 0.045)

_GRID = (
    np.arange(0.42, 0.581, 0.02),
    np.arange(0.02, 0.221, 0.04),
    np.arange(0.70, 0.981, 0.04),
    np.arange(0.26, 0.441, 0.03),
)


def lung_fields(images: UInt8[np.ndarray, "N S S"]) -> Bool[np.ndarray, "N S S"]:
    """Returns the lung field of every image, uint8 [N, S, S] in 0..255, as a mask [N, S, S]."""
    side = images.shape[-1]
    return np.stack([draw_field(outline, side) for outline in fit_outlines(images)])


def fit_outlines(images: UInt8[np.ndarray, "N S S"]) -> list[Outline]:
    """Returns the outline that fits every image, uint8 [N, S, S], best; nearly the usual for a plain grey."""
    small = np.stack([cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for image in images])
    small = small.astype(np.float32)
    centre = small[:, _SIDE // 4 : 3 * _SIDE // 4, _SIDE // 4 : 3 * _SIDE // 4]
    # Air beside the body is darker than any lung and would draw the outline out of the chest.
    floor = np.quantile(centre, 0.1, axis=(1, 2), keepdims=True).astype(np.float32)
    vectors = np.maximum(small, floor).reshape(len(images), -1)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    outlines, templates, penalties = _templates()
    best = np.argmax(-(vectors @ templates.T) - penalties, axis=1)
    return [outlines[index] for index in best]


def draw_field(outline: Outline, side: int) -> Bool[np.ndarray, "S S"]:
    """Returns the field inside an outline as a mask [side, side]."""
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side
    height = outline.bottom - outline.top
    away = np.abs(columns - outline.middle) / outline.half_width  # 0 in the middle, 1 at the widest outer wall
    depth = np.clip((rows - outline.top) / height, 0, 1)
    wall = 0.28 + 0.72 * np.sin(0.5 * np.pi * depth**0.62)
    diaphragm = outline.bottom - 0.20 * height * (1 - np.clip(away, 0, 1) ** 3)
    between_apices = outline.top + 0.16 * height * np.clip(1 - away / 0.28, 0, 1)
    return (away <= wall) & (rows >= between_apices) & (rows <= diaphragm)


@functools.cache
def _templates() -> tuple[list[Outline], np.ndarray, np.ndarray]:
    """Returns every outline of the grid, its template float32 [T, P] of length 1 and mean 0, and its penalty [T]."""
    outlines = [Outline(*map(float, measures)) for measures in itertools.product(*_GRID)]
    templates = np.stack([_template(outline).ravel() for outline in outlines])
    templates -= templates.mean(axis=1, keepdims=True)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    distance = (np.array(outlines) - np.array(USUAL)) / np.array(_DEVIATION)
    return outlines, templates, (_PENALTY * np.sum(distance**2, axis=1)).astype(np.float32)


def _template(outline: Outline) -> np.ndarray:
    """Returns float32 [_SIDE, _SIDE]: positive where lungs should be dark, negative where tissue should be bright."""
    field = draw_field(outline, _SIDE)
    columns = (np.arange(_SIDE) + 0.5) / _SIDE
    away = np.abs(columns - outline.middle)[None, :] / outline.half_width
    lungs = field & (away > 0.26)
    rim = cv2.dilate(field.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~field
    bright = rim | (field & (away < 0.20))
    return (lungs / lungs.sum() - bright / bright.sum()).astype(np.float32)
