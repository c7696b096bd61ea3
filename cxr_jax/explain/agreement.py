"""Do networks trained alike explain alike? Agreement of maps between runs that differ by their seed.

Arun et al., "Assessing the Trustworthiness of Saliency Maps for Localizing Abnormalities in Medical Imaging",
Radiology: Artificial Intelligence 2021, call this repeatability: two networks of one recipe should mark the same places
of the same image. If they do not, a map shows an accident of training. Compared are maps for the same class.

Rule: maps pass if the rank correlation between runs, averaged over all pairs of runs, is above 0.5 by the lower end of
its 95 % interval over images. That of maps of different images is stated beside it: agreement that is no higher comes
from a place that is always marked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from cxr_jax.explain.similarity import rank_correlation
from cxr_jax.explain.verdict import Check, Verdict, means_by_class
from cxr_jax.vocabulary import CLASS_NAMES

LIMIT = 0.5
"""Rank correlation from which maps of two runs count as agreeing."""

CHECK = Check(
    name="seeds",
    title="Agrees between runs of one recipe",
    source="Arun et al. 2021",
    measure="rank correlation of maps of the same image between runs",
    rule=f"lower end above {LIMIT:g}",
)


def pairwise_agreement(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Returns float64 [N]: the mean rank correlation of every image's maps over all pairs of runs.

    `maps` holds [N, h, w] of each of two or more runs.
    """
    pairs = itertools.combinations(maps, 2)
    return np.mean([rank_correlation(first, second) for first, second in pairs], axis=0)


def judge_agreement(
    maps: Sequence[np.ndarray], classes: np.ndarray, clusters: np.ndarray, names: Sequence[str] = CLASS_NAMES
) -> Verdict:
    """Returns the verdict by the rule above for maps [N, h, w] of two or more runs.

    `classes`, int [N], are those explained, indices into `names`; `clusters`, int [N], number the groups.
    """
    means = means_by_class(pairwise_agreement(maps), classes, clusters, names)
    others = pairwise_agreement([np.roll(one, shift, axis=0) for shift, one in enumerate(maps)])
    told = f"{len(maps)} runs; maps of different images correlate between runs by {others.mean():.2f}."
    return CHECK.verdict(means, lambda mean: mean.low > LIMIT, told)
