"""The box of the lungs as predicted from an image alone: ridge regression on histograms of its gradients."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from cxr_jax.images.crops import crop_to_box
from cxr_jax.runs.description import LungBoxes

SIDE = 64
"""Side in pixels of the images whose gradients are counted."""

CELL = 8
"""Side in pixels of the cells in which they are counted together."""

DIRECTIONS = 8
"""Of gradients, over half a turn: which side of an edge is bright does not matter."""

_SMALLEST = 0.3
"""Shortest side of a box as a share of the image's: a wrong prediction must not leave a strip."""


def gradient_histograms(images: UInt8[np.ndarray, "N S S"]) -> Float[np.ndarray, "N F"]:
    """Returns how strong the gradients of every image are, float64 [N, F], by cell and direction, relative to all."""
    return np.stack([_histogram(image) for image in images])


def _histogram(image: np.ndarray) -> np.ndarray:
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    across, down = (cv2.Sobel(small, cv2.CV_32F, *order, ksize=1) for order in ((1, 0), (0, 1)))
    strength, angle = np.hypot(across, down), np.arctan2(down, across) % np.pi
    # shared out between the two nearest directions, so that a small turn changes little
    place = angle * DIRECTIONS / np.pi
    lower, upper = np.floor(place).astype(int) % DIRECTIONS, (np.floor(place).astype(int) + 1) % DIRECTIONS
    share = place - np.floor(place)
    maps = np.zeros((DIRECTIONS, SIDE, SIDE))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    np.add.at(maps, (lower, rows, columns), strength * (1 - share))
    np.add.at(maps, (upper, rows, columns), strength * share)
    cells = maps.reshape(DIRECTIONS, SIDE // CELL, CELL, SIDE // CELL, CELL).sum(axis=(2, 4))
    # each cell by itself, so that a dark film has as much to say as a bright one; faint cells stay faint
    strengths = np.linalg.norm(cells, axis=0)
    return (cells / (strengths + 0.05 * strengths.mean() + 1e-6)).ravel()


def predict_boxes(regression: LungBoxes, features: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N 4"]:
    """Returns the predicted boxes, float64 [N, 4], inside the image and not too small."""
    weights = np.asarray(regression.weights)
    found = np.clip(weights[0] + features @ weights[1:], 0, 1)
    middle = (found[:, :2] + found[:, 2:]) / 2
    half = np.maximum((found[:, 2:] - found[:, :2]) / 2, _SMALLEST / 2)
    middle = np.clip(middle, half, 1 - half)
    return np.concatenate([middle - half, middle + half], axis=1)


def crop_to_lungs(image: UInt8[np.ndarray, "S S"], regression: LungBoxes) -> UInt8[np.ndarray, "S S"]:
    """Returns an image cropped to the box of its lungs as predicted from itself, uint8 [S, S]."""
    return crop_to_box(image, predict_boxes(regression, gradient_histograms(image[None]))[0])
