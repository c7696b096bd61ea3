"""How the probabilities of a network were distributed on validation, and how far those of other images are from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_STEPS = 20
"""Of the distribution that is kept."""

MIN_IMAGES = 10
"""Of validation, in a step of the distribution."""


@dataclass(frozen=True)
class Scores:
    """How the probabilities of PNEUMONIA were distributed on validation; no single image's is told."""

    images: int
    edges: tuple[float, ...]  # rising quantiles at even steps, without the lowest and the highest probability
    shares: tuple[float, ...]  # of the images below the first edge, from each edge to below the next, from the last on

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.edges) + 1 or list(self.edges) != sorted(self.edges):
            raise ValueError("the edges of scores do not rise, or their shares are not one more")

    @classmethod
    def of(cls, probability: np.ndarray) -> Scores | None:
        """Returns the distribution of probabilities [N] in steps of at least ten images; None of fewer than twenty."""
        steps = min(MAX_STEPS, len(probability) // MIN_IMAGES)
        if steps < 2:
            return None
        # equal probabilities make equal edges, of which one is kept
        edges = np.unique(np.quantile(probability, np.linspace(0, 1, steps + 1)[1:-1]))
        shares = _counts(probability, edges) / len(probability)
        return cls(len(probability), tuple(edges.tolist()), tuple(shares.tolist()))

    def stability_index(self, probability: np.ndarray) -> float:
        """Returns the population stability index of probabilities [N] against validation: 0 if they are alike.

        It is the sum of (a - e) ln(a / e) over the steps, with the shares a of these images and e of validation
        (Siddiqi, Credit Risk Scorecards, 2006). Half an image is added to every step, so that empty ones count.
        """
        expected = _smoothed(np.array(self.shares) * self.images)
        actual = _smoothed(_counts(probability, np.array(self.edges)))
        return float(np.sum((actual - expected) * np.log(actual / expected)))

    def stability_index_by_chance(self, images: int) -> float:
        """Returns what the index of so many images like those of validation exceeds in one case of twenty.

        It is then about chi-square distributed, times 1 / images + 1 / images of validation (Yurdakul and Naranjo,
        Journal of Risk Model Validation 2020).
        """
        from scipy.stats import chi2

        return float(chi2.ppf(0.95, len(self.edges)) * (1 / images + 1 / self.images))


def _counts(probability: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns int64 [len(edges) + 1]: how many probabilities lie in each step."""
    return np.bincount(np.searchsorted(edges, probability, side="right"), minlength=len(edges) + 1)


def _smoothed(counts: np.ndarray) -> np.ndarray:
    return (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
