"""How alike two heat maps of one image are: rank correlation, and structural similarity."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

_WINDOW = 1 / 20
"""Deviation of the Gaussian window of structural similarity, as a share of the map's side.

About that of the window of 50 in 299 pixels that Adebayo et al. 2018 used.
"""

_STABILISERS = (0.01**2, 0.03**2)
"""C1 and C2 of Wang et al. 2004 for values in 0..1."""


def rank_correlation(first: Float[np.ndarray, "N h w"], second: Float[np.ndarray, "N h w"]) -> Float[np.ndarray, " N"]:
    """Returns Spearman's rank correlation of every pair of maps [N, h, w] over their cells, float64 [N] in -1..1.

    Ties share their mean rank. 0 where one of the two has the same value everywhere: it ranks nothing.
    """
    # scipy 1.18 ranks float32 in float32, which holds no mean rank of many cells
    flat = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second))
    ranks = [rankdata(maps, axis=1) for maps in flat]
    centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    length = np.linalg.norm(centred[0], axis=1) * np.linalg.norm(centred[1], axis=1)
    product = np.sum(centred[0] * centred[1], axis=1)
    return np.divide(product, length, out=np.zeros(len(first)), where=length > 0)


def structural_similarity(
    first: Float[np.ndarray, "N h w"], second: Float[np.ndarray, "N h w"]
) -> Float[np.ndarray, " N"]:
    """Returns the structural similarity of every pair of maps in 0..1 [N, h, w], float64 [N]; 1 for equal maps.

    Wang et al., IEEE Transactions on Image Processing 2004: brightness, contrast and pattern compared in a Gaussian
    window, averaged over the map.
    """
    return np.array([_structural_similarity(one, other) for one, other in zip(first, second, strict=True)])


def _structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first.astype(np.float64), second.astype(np.float64)
    deviation = max(_WINDOW * first.shape[0], 0.5)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)

    one, other = mean(first), mean(second)
    variance_one, variance_other = mean(first**2) - one**2, mean(second**2) - other**2
    covariance = mean(first * second) - one * other
    c1, c2 = _STABILISERS
    brightness = (2 * one * other + c1) / (one**2 + other**2 + c1)
    pattern = (2 * covariance + c2) / (variance_one + variance_other + c2)
    return float(np.mean(brightness * pattern))
