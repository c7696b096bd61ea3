"""Where do the maps lie? Their share inside the lungs and at the border of the image.

The share of a map's heat inside a region is set against the share that a uniform map has there, which is the region's
share of the image. DeGrave, Janizek & Lee, "AI for radiographic COVID-19 detection selects shortcuts over signal",
Nature Machine Intelligence 2021, found networks that look at markers and at the border; this counts it.

The lungs are those of a lung mask where there is one, and else a coarse field found without one, see `lung_field`. With
masks the hottest place of each map is judged too (the pointing game of Zhang et al., "Top-down Neural Attention by
Excitation Backprop", IJCV 2018), against a place by lot.

Rules: maps pass in the lungs if their share exceeds the uniform map's by the lower end of the 95 % interval over images
of the difference, and their hottest places likewise; at the border, if their share is less by the upper end. A share
tells shortcuts from lungs, not one lobe from another, and a map of 7 x 7 cells cannot keep inside lungs of any shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cxr_jax.explain.heat_maps import enlarged
from cxr_jax.explain.lung_field import lung_fields
from cxr_jax.explain.verdict import Check, Mean, Verdict, means_by_class
from cxr_jax.images.regions import border
from cxr_jax.vocabulary import CLASS_NAMES

LUNGS = Check(
    name="lungs",
    title="Lies in the lungs more than chance",
    source="DeGrave et al. 2021",
    measure="share of the map in the lung field, less that of a uniform map",
    rule="lower end above 0",
)

IN_MASKS = dataclasses.replace(LUNGS, measure="share of the map in the lung masks, less that of a uniform map")
"""The same of images with lung masks."""

POINTING = Check(
    name="pointing",
    title="Points into the lungs more than chance",
    source="Zhang et al. 2018",
    measure="share of maps whose hottest place is in the lung mask, less that of a place by lot",
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


def hits(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns bool [N]: whether the hottest place of each map [N, h, w] lies inside its mask, bool [N, S, S]."""
    large = enlarged(heat, masks.shape[-1])
    places = large.reshape(len(large), -1).argmax(axis=1)
    return masks.reshape(len(masks), -1)[np.arange(len(masks)), places]


def judge_attention(
    images: np.ndarray,
    heat: np.ndarray,
    classes: np.ndarray,
    clusters: np.ndarray,
    masks: np.ndarray | None = None,
    names: Sequence[str] = CLASS_NAMES,
) -> list[Verdict]:
    """Returns the verdicts on lungs and border for maps [N, h, w] of images, uint8 [N, S, S].

    Args:
        images: as the network sees them.
        heat: the maps; none may be blank.
        classes: int [N], those explained, indices into `names`.
        clusters: int [N], the numbers of the groups.
        masks: bool [N, S, S], the lung masks, empty for an image without one; None if no image has one.
        names: of the classes of the network.
    """
    rim = np.broadcast_to(border(images.shape[-1]), images.shape)
    at_border, told_border = _excess(heat, rim, "outer tenth")
    if masks is None or not masks.any():
        found = _in_field(images, heat, classes, clusters, names)
    else:
        found = _in_masks(images, heat, classes, clusters, masks, names)
    return [
        *found,
        BORDER.verdict(means_by_class(at_border, classes, clusters, names), lambda mean: mean.high < 0, told_border),
    ]


def _in_field(
    images: np.ndarray, heat: np.ndarray, classes: np.ndarray, clusters: np.ndarray, names: Sequence[str]
) -> list[Verdict]:
    in_lungs, told = _excess(heat, lung_fields(images), "lung field")
    return [LUNGS.verdict(means_by_class(in_lungs, classes, clusters, names), _above_chance, told)]


def _in_masks(
    images: np.ndarray,
    heat: np.ndarray,
    classes: np.ndarray,
    clusters: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
) -> list[Verdict]:
    """Returns the verdicts on images of which some have a mask; to the others the coarse field is one."""
    having = masks.any(axis=(1, 2))
    lungs, without = masks.copy(), ""
    if not having.all():
        lungs[~having] = lung_fields(images[~having])
        without = f" {np.sum(~having)} of {len(masks)} images have no mask: a coarse lung field stands in for it."
    in_lungs, told = _excess(heat, lungs, "lungs")
    pointed, chance = hits(heat[having], masks[having]), masks[having].mean(axis=(1, 2))
    told_hits = (
        f"The hottest place is in the lungs in {np.sum(pointed)} of {len(pointed)} maps; a place by lot is in "
        f"{chance.mean():.1%}."
    )
    means = means_by_class(pointed - chance, classes[having], clusters[having], names)
    return [
        IN_MASKS.verdict(means_by_class(in_lungs, classes, clusters, names), _above_chance, told + without),
        POINTING.verdict(means, _above_chance, told_hits),
    ]


def _above_chance(mean: Mean) -> bool:
    return mean.low > 0


def _excess(heat: np.ndarray, masks: np.ndarray, place: str) -> tuple[np.ndarray, str]:
    """Returns float64 [N], how much more of each map lies in its mask than of a uniform one, and the shares in
    words.
    """
    share, expected = heat_share(heat, masks), masks.mean(axis=(1, 2))
    told = f"{share.mean():.1%} of the heat lies in the {place}, which is {expected.mean():.1%} of the image."
    return share - expected, told
