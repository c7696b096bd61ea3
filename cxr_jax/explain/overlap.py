"""How well the coarse lung field that stands in for a lung mask lies on a real one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cxr_jax.explain.verdict import Mean, mean_over_images


@dataclass(frozen=True)
class FieldOverlap:
    """Overlap of lung fields with lung masks, as means over images with 95 % intervals over groups.

    Attributes:
        images: how many.
        dice: twice the common area as a share of both areas together.
        iou: the common area as a share of the area that either covers.
    """

    images: int
    dice: Mean
    iou: Mean


def dice(first: Bool[np.ndarray, "N S S"], second: Bool[np.ndarray, "N S S"]) -> Float[np.ndarray, " N"]:
    """Returns the Dice coefficients [N] of pairs of masks, of which neither is empty."""
    both = np.sum(first & second, axis=(1, 2))
    return 2 * both / (np.sum(first, axis=(1, 2)) + np.sum(second, axis=(1, 2)))


def iou(first: Bool[np.ndarray, "N S S"], second: Bool[np.ndarray, "N S S"]) -> Float[np.ndarray, " N"]:
    """Returns intersection over union [N] of pairs of masks, of which neither is empty."""
    return np.sum(first & second, axis=(1, 2)) / np.sum(first | second, axis=(1, 2))


def field_overlap(
    fields: Bool[np.ndarray, "N S S"], masks: Bool[np.ndarray, "N S S"], clusters: Int[np.ndarray, " N"]
) -> FieldOverlap:
    """Returns the overlap of lung fields with the masks of the same images; `clusters` [N] number the groups."""
    found = (mean_over_images(measure(fields, masks), clusters) for measure in (dice, iou))
    return FieldOverlap(len(masks), *found)
