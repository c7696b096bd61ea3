"""What is shown of a radiograph: all of it, or a region that lung masks tell, everything else one grey."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from cxr_jax.images.made_rows import MadeRows

GREY = 128
"""Grey level of what is not shown; the same in every image, so that it tells nothing of what it hides."""

WHOLE = "whole"
"""The region that is the image as it is, and needs no mask."""

REGIONS = ("mask", "lungs", "outside_lungs", "outside_box", "border")
"""Names of the regions that masks tell, in the order in which they are told."""

BORDER_SHARE = 0.1
"""Width of the border as a share of the image's side."""


def show_region(
    images: UInt8[np.ndarray, "N S S"], masks: Bool[np.ndarray, "N S S"], region: str
) -> UInt8[np.ndarray, "N S S"]:
    """Returns what a network sees that is shown a region alone, uint8 [N, S, S]; the images stay as they are.

    Args:
        images: grey, uint8 [N, S, S] in 0..255.
        masks: True in the lungs, bool [N, S, S]; no mask may be empty.
        region: `whole`: the image. `mask`: no grey level of the image, white (255) in the lungs and black outside.
            `lungs`: the lungs. `outside_lungs`: everything else. `outside_box`: everything outside the smallest upright
            box around the lungs. `border`: a rim as wide as a tenth of the side, without lungs.

    Raises:
        ValueError: there is no such region.
    """
    if region == WHOLE:
        return images
    if region == "mask":
        return np.where(masks, np.uint8(255), np.uint8(0))
    if region == "lungs":
        shown = masks
    elif region == "outside_lungs":
        shown = ~masks
    elif region == "outside_box":
        shown = ~boxes(masks)
    elif region == "border":
        shown = border(images.shape[-1], BORDER_SHARE) & ~masks
    else:
        raise ValueError(f"there is no region {region!r}; there are {', '.join((WHOLE, *REGIONS))}")
    return np.where(shown, images, np.uint8(GREY))


def boxes(masks: Bool[np.ndarray, "N S S"]) -> Bool[np.ndarray, "N S S"]:
    """Returns the smallest upright box around every mask, as a mask [N, S, S]; that of an empty mask is empty."""
    columns, rows = (_between_ends(masks.any(axis=axis)) for axis in (1, 2))
    return rows[:, :, None] & columns[:, None, :]


def border(side: int, share: float = BORDER_SHARE) -> Bool[np.ndarray, "S S"]:
    """Returns a mask [side, side] of the image's rim, `share` of the side wide: markers, collimation and cables."""
    width = max(round(share * side), 1)
    mask = np.ones((side, side), bool)
    mask[width : side - width, width : side - width] = False
    return mask


def _between_ends(present: np.ndarray) -> np.ndarray:
    """Returns bool [N, S]: True from the first to the last True of every row of `present` [N, S]."""
    from_first = np.logical_or.accumulate(present, axis=1)
    to_last = np.logical_or.accumulate(present[:, ::-1], axis=1)[:, ::-1]
    return from_first & to_last


@dataclass(frozen=True)
class RegionRows(MadeRows):
    """Images that show a region alone, made when they are asked for."""

    masks: np.ndarray  # the same of the lung masks, 1 in the lungs and 0 outside
    region: str

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        images, masks = np.asarray(self.images[index]), np.asarray(self.masks[index]) > 0
        if images.ndim == 2:
            return show_region(images[None], masks[None], self.region)[0]
        return show_region(images, masks, self.region)
