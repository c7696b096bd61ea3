"""Where do the maps lie? Their share inside a coarse lung field and at the border of the image.

The share of a map's heat inside a region is set against the share that a uniform map has there, which is the region's
share of the image. DeGrave, Janizek & Lee, "AI for radiographic COVID-19 detection selects shortcuts over signal",
Nature Machine Intelligence 2021, found networks that look at markers and at the border; this counts it.

Rules: maps pass in the lung field if their share exceeds the uniform map's by the lower end of the 95 % interval over
images of the difference; at the border, if it is less by the upper end. The field is coarse, see `lung_field`: a share
tells shortcuts from lungs, not one lobe from another, and a map of 7 x 7 cells cannot keep inside lungs of any shape.
"""

from __future__ import annotations

import numpy as np

from cxr_jax.explain.heat_maps import enlarged
from cxr_jax.explain.lung_field import lung_fields
from cxr_jax.explain.verdict import Check, Verdict, means_by_class
from cxr_jax.images.regions import border

LUNGS = Check(
    name="lungs",
    title="Lies in the lungs more than chance",
    source="DeGrave et al. 2021",
    measure="share of the map in the lung field, less that of a uniform map",
    rule="lower end above 0",
)

BORDER = Check(
    name="border",
    title="Lies at the border less than chance",
    source="DeGrave et al. 2021",
    measure="share of the map in the outer tenth of the image, less that of a uniform map",
    rule="upper end below 0",
)


def heat_share(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns float64 [N]: the share of each map's heat [N, h, w] that lies inside its mask, bool [N, S, S].

    Maps are stretched to the masks' size; none may be blank.
    """
    large = enlarged(heat, masks.shape[-1]).astype(np.float64)
    return np.sum(large * masks, axis=(1, 2)) / np.sum(large, axis=(1, 2))


def judge_attention(images: np.ndarray, heat: np.ndarray, classes: np.ndarray, clusters: np.ndarray) -> list[Verdict]:
    """Returns the verdicts on lung field and border for maps [N, h, w] of images, uint8 [N, S, S].

    `classes`, int [N], are those explained; `clusters`, int [N], number the groups.
    """
    rim = np.broadcast_to(border(images.shape[-1]), images.shape)
    in_lungs, told_lungs = _excess(heat, lung_fields(images), "lung field")
    at_border, told_border = _excess(heat, rim, "outer tenth")
    return [
        LUNGS.verdict(means_by_class(in_lungs, classes, clusters), lambda mean: mean.low > 0, told_lungs),
        BORDER.verdict(means_by_class(at_border, classes, clusters), lambda mean: mean.high < 0, told_border),
    ]


def _excess(heat: np.ndarray, masks: np.ndarray, place: str) -> tuple[np.ndarray, str]:
    """Returns float64 [N], how much more of each map lies in its mask than of a uniform one, and the shares in
    words.
    """
    share, expected = heat_share(heat, masks), masks.mean(axis=(1, 2))
    told = f"{share.mean():.1%} of the heat lies in the {place}, which is {expected.mean():.1%} of the image."
    return share - expected, told
