"""Unsupervised alignment: probabilities of a batch without labels, brought to where those of validation lie.

Where a network ranks new images as it ranked those of validation, but gives all of them higher or lower probabilities,
a threshold of validation is wrong there. If the share of PNEUMONIA is known, labels are not needed to see it
(Roschewitz et al., Nature Communications 2023). It is transductive: it looks at the very batch that is judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.measures import Measure, Measured, measure
from cxr_jax.evaluation.metrics import METRICS
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import PNEUMONIA

SHOWN = ("balanced_accuracy", "accuracy", "sensitivity", "specificity")

ASSUMPTION = (
    "It assumes that the declared share is right, and that images of one class are ranked among themselves as in "
    "validation. Each half of the groups was aligned by the other half, without labels. Intervals are for other "
    "patients, not for other batches to align by"
)


@dataclass(frozen=True)
class AlignedCalls:
    """What calls at the threshold reach on a batch whose probabilities were aligned.

    Attributes:
        prevalence: the share of PNEUMONIA that was declared.
        threshold: of the aligned probabilities.
        called: share of images called PNEUMONIA.
        called_before: the same of the probabilities as they were.
        metrics: those in `SHOWN`, by name.
        transductive: always True: no row for images that come one by one.
    """

    prevalence: float
    threshold: float
    called: float
    called_before: float
    metrics: dict[str, Measured]
    transductive: bool = True


def judge_aligned(
    validation: Predictions,
    test: Predictions,
    threshold: float,
    prevalence: float,
    confidence: Confidence,
    advance: Callable[[int], None] = lambda _: None,
) -> AlignedCalls:
    """Returns what calls at `threshold`, chosen on `validation`, reach on `test` once its probabilities are aligned.

    `prevalence` is the share of PNEUMONIA among the images of test, as somebody declares it. `advance` is told how many
    more resamples are done. Labels of test have a part in the metrics alone.

    Raises:
        ValueError: the prevalence is not between 0 and 1, or test has one group only.
    """
    aligned = align(validation, test.probability, halves(test, seed=confidence.seed), prevalence)
    predictions = dataclasses.replace(test, logits=None, probability=aligned)
    metrics = {name: Measure(METRICS[name]) for name in SHOWN}
    called, called_before = (float(np.mean(values >= threshold)) for values in (aligned, test.probability))
    measured = measure(predictions, threshold, metrics, confidence, advance)
    return AlignedCalls(prevalence, threshold, called, called_before, measured)


def halves(predictions: Predictions, *, seed: int) -> np.ndarray:
    """Returns a mask [N] that splits the images into two halves of whole groups, as equal as groups of a size allow.

    Groups go to the smaller half in an order drawn from `seed`, the largest first.

    Raises:
        ValueError: there is one group only.
    """
    clusters = predictions.clusters()
    sizes = np.bincount(clusters)
    if len(sizes) < 2:
        raise ValueError("one group cannot be split into halves")
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    second, counts = np.zeros(len(sizes), bool), [0, 0]
    for group in drawn[np.argsort(-sizes[drawn], kind="stable")]:
        second[group] = counts[1] < counts[0]
        counts[int(second[group])] += sizes[group]
    return second[clusters]


def align(validation: Predictions, probability: np.ndarray, second: np.ndarray, prevalence: float) -> np.ndarray:
    """Returns `probability` [N] brought to the distribution that `validation` would have at the declared prevalence.

    Of the two halves, told apart by the mask `second` [N], each is moved by the curve that brings the other half there.
    The curve is rising and piecewise linear, from quantiles to quantiles.

    Raises:
        ValueError: the prevalence is not between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"prevalence is {prevalence}, but must be above 0 and below 1")
    positive = validation.label == PNEUMONIA
    weights = np.where(positive, prevalence / positive.sum(), (1 - prevalence) / (~positive).sum())
    aligned = np.empty(len(probability))
    for half in (second, ~second):
        aligned[half] = _moved(probability[half], probability[~half], validation.probability, weights)
    return aligned


def _moved(values: np.ndarray, fitted_on: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns `values` moved by the curve from the quantiles of `fitted_on` to the weighted ones of `reference`."""
    order = np.argsort(reference, kind="stable")
    summed = np.cumsum(weights[order])
    # an image stands in the middle of its own share
    middles = (summed - weights[order] / 2) / summed[-1]
    levels = (np.arange(len(fitted_on)) + 0.5) / len(fitted_on)
    targets = np.interp(levels, middles, reference[order])
    sources, first, counts = np.unique(np.sort(fitted_on), return_index=True, return_counts=True)
    means = np.add.reduceat(targets, first) / counts
    # beyond the ends a probability goes the rest of its way to 0 or 1
    return np.interp(values, [-1e-12, *sources, 1 + 1e-12], [0.0, *means, 1.0])
