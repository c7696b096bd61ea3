"""Lung boxes of prepared images: a regression fitted on the boxes of lung masks, and what it predicts without a mask.

An image that the regression could be fitted on is given the box that was predicted without its fold, so that no image
of train or validation has a better box than a film that nobody outlined.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.cache import decoded_images, how_resized
from cxr_jax.data.folds import assign_folds
from cxr_jax.data.lung_boxes import gradient_histograms, predict_boxes
from cxr_jax.data.masks.decoded import decoded_masks
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.errors import UserError
from cxr_jax.runs import files
from cxr_jax.runs.description import LungBoxes

WANTED = 'data.crop "lungs"'
"""What needs the masks, for errors."""

STRENGTH = 30.0
"""Of the L2 penalty, on standardised features; not tuned on these images."""

FOLDS = 5

VERSION = 1
"""Of all this; raised when boxes change."""

FEWEST = 20
"""Images with a mask that a regression needs at least."""

_CHUNK = 64


@dataclass(frozen=True)
class PreparedBoxes:
    """Boxes of all images of prepared data, and the regression that predicts those of others.

    A box is left, top, right and bottom, as shares of the side of the square image.
    """

    boxes: Float[np.ndarray, "N 4"]
    regression: LungBoxes


def boxes_of_masks(masks: UInt8[np.ndarray, "N S S"]) -> Float[np.ndarray, "N 4"]:
    """Returns left, top, right and bottom of the lungs of every mask, float64 [N, 4], as shares of the side."""
    side = masks.shape[-1]
    ends = []
    for axis in (1, 2):
        present = masks.any(axis=axis)
        ends.append((present.argmax(axis=1), side - present[:, ::-1].argmax(axis=1)))
    (left, right), (top, bottom) = ends
    return np.stack([left, top, right, bottom], axis=1) / side


def fit_boxes(features: Float[np.ndarray, "N F"], boxes: Float[np.ndarray, "N 4"]) -> LungBoxes:
    """Returns the ridge regression of boxes on features."""
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    standard = (features - mean) / scale
    middle = boxes.mean(axis=0)
    slopes = np.linalg.solve(
        standard.T @ standard + STRENGTH * np.eye(features.shape[1]), standard.T @ (boxes - middle)
    )
    slopes = slopes / scale[:, None]
    # in single precision, as it is stored, so that a run predicts what was predicted for it
    weights = np.vstack([middle - mean @ slopes, slopes]).astype(np.float32)
    return _regression(weights)


def overlap_of_boxes(first: Float[np.ndarray, "N 4"], second: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    """Returns intersection over union [N] of pairs of boxes."""
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    return common / (areas[0] + areas[1] - common)


def prepared_boxes(prepared: PreparedData, config: DataConfig, *, track: Track = silently) -> PreparedBoxes:
    """Returns the predicted lung box of every image of prepared data, and the regression.

    The regression is fitted on all images with a mask but those of test. An image that is not of test gets the box of a
    regression that was fitted without its fold, one of five of whole groups; an image of test that of the regression.

    Raises:
        UserError: there are no masks, or too few of them, or these are of too few groups.
    """
    record = prepared.require_masks(WANTED)
    name = f"{prepared.fingerprint[:16]}-{record.fingerprint[:16]}-boxes{VERSION}-{how_resized(config)}.npz"
    path = prepared.decoded / name
    try:
        with np.load(path, allow_pickle=False) as stored:
            return PreparedBoxes(stored["boxes"], _regression(stored["weights"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        found = _predicted(prepared, config, track)
    with files.atomic_path(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, boxes=found.boxes, weights=np.asarray(found.regression.weights))
    return found


def _regression(weights: np.ndarray) -> LungBoxes:
    return LungBoxes(tuple(tuple(row) for row in weights.tolist()))


def _predicted(prepared: PreparedData, config: DataConfig, track: Track) -> PreparedBoxes:
    images = decoded_images(prepared, config, track=track)
    masks = decoded_masks(prepared, config, WANTED, track=track)
    learnable = np.array([example.split != "test" for example in prepared.examples])
    # an image without a mask has an empty one
    having = masks.any(axis=(1, 2))
    if np.sum(learnable & having) < FEWEST:
        raise UserError(f"{WANTED} needs {FEWEST} images with a lung mask that are not of test, and there are fewer")
    groups = {example.group for example, counts in zip(prepared.examples, learnable & having, strict=True) if counts}
    if len(groups) < FOLDS:
        raise UserError(
            f"{WANTED} needs images with a lung mask of {FOLDS} groups that are not of test, and there are "
            f"{len(groups)}"
        )
    with track("Measuring gradients", len(images)) as advance:
        parts = []
        for start in range(0, len(images), _CHUNK):
            parts.append(gradient_histograms(images[start : start + _CHUNK]))
            advance(len(parts[-1]))
    features = np.concatenate(parts)
    targets = boxes_of_masks(masks)
    regression = fit_boxes(features[learnable & having], targets[learnable & having])
    boxes = predict_boxes(regression, features)
    rows = np.flatnonzero(learnable)
    folds = np.full(len(images), -1)
    # a fold may lack a class, which says nothing of lungs: no class is named that each would need
    folds[rows] = assign_folds([prepared.examples[row] for row in rows], FOLDS, 0, (), prepared.kind)
    for fold in range(FOLDS):
        held = folds == fold
        others = learnable & having & ~held
        boxes[held] = predict_boxes(fit_boxes(features[others], targets[others]), features[held])
    return PreparedBoxes(boxes, regression)
