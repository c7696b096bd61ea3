"""Do the marked places carry the score? Insertion and deletion curves.

Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018. Deletion greys
out the pixels of an image, the hottest first, and follows the probability of the explained class: the area under the
curve is small for a good map. Insertion brings the pixels back into a blurred image, the hottest first: the area is
large for a good map. As in the paper insertion begins with a blur, which has no sharp edges, and deletion ends in one
grey; here it is the mean grey of the image itself, and the blur is wide enough to remove an opacity.

A network may answer well to what remains of any image, so the areas alone say little. They are compared with those of
random maps of the same grid and smoothness on the same image.

Rules: a map passes insertion if its area exceeds the mean of the random maps' by the lower end of the 95 % interval
over images of the paired difference; deletion, if its area is less by the upper end. Besides, the mean probability must
rise by 0.1 or more from the blurred image to the whole one, or fall by as much to the grey one: where it does not, the
network answers the same with nothing to see, and no map could carry the score.

The curves are also drawn for the map of another image that is explained for the same class. This has no part in the
verdict, but a map that does no better than another image's shows where the network usually looks, not what it saw here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cxr_jax.evaluation.numbers import TO, with_interval
from cxr_jax.explain.heat_maps import enlarged
from cxr_jax.explain.verdict import Check, Verdict, judged_classes, mean_over_images, means_by_class
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.runs.finding_predictions import sigmoid_of
from cxr_jax.runs.predictions import probability_of, softmax_of
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS, PNEUMONIA

STEPS = 12
"""In how many equal parts the pixels are changed."""

RANDOM_MAPS = 2
"""Random maps that every image's map is compared with."""

_BLUR = 1 / 12
"""Deviation of the blur that insertion begins with, as a share of the image's side."""

LEAST_CHANGE = 0.1
"""By how much the mean probability must change on the way for the curves to tell anything."""

CHECKS = {
    "insertion": Check(
        name="insertion",
        title="Marks what raises the score",
        source="Petsiuk et al. 2018",
        measure="area under the insertion curve, less that of random maps on the same images",
        rule=f"lower end above 0, and the probability rises by {LEAST_CHANGE:g} or more",
    ),
    "deletion": Check(
        name="deletion",
        title="Marks what the score needs",
        source="Petsiuk et al. 2018",
        measure="area under the deletion curve, less that of random maps on the same images",
        rule=f"upper end below 0, and the probability falls by {LEAST_CHANGE:g} or more",
    ),
}

KINDS = tuple(CHECKS)

OWN, RANDOM, OTHER = "map", "random maps", "map of another image"


class Curves(NamedTuple):
    """Probability of the explained class against the share of pixels that were changed."""

    shares: np.ndarray  # float64 [K], from 0 to 1
    scores: dict[str, dict[str, np.ndarray]]  # by KINDS, then by OWN, RANDOM, OTHER: float64 [N, K]

    def areas(self, kind: str, name: str) -> np.ndarray:
        """Returns the area under each image's curve, float64 [N] in 0..1."""
        return np.trapezoid(self.scores[kind][name], self.shares, axis=1)


def draw_curves(
    trained: TrainedModel,
    images: np.ndarray,
    classes: np.ndarray,
    heat: np.ndarray,
    *,
    steps: int = STEPS,
    seed: int = 0,
    advance: Callable[[int], None] = lambda steps: None,
) -> Curves:
    """Returns the curves of N images, uint8 [N, S, S], explained for `classes`, int [N], by maps `heat` [N, h, w].

    `seed` is that of the random maps and of the order among pixels of equal heat; `advance` is told after each image.
    """
    random = np.random.default_rng(seed)
    noise = [random.random(heat.shape).astype(np.float32) for _ in range(RANDOM_MAPS)]
    partners = heat[other_of_class(classes)]
    side = images.shape[-1]
    shares = np.linspace(0, 1, steps + 1)
    rows: dict[str, dict[str, list[np.ndarray]]] = {kind: {OWN: [], RANDOM: [], OTHER: []} for kind in KINDS}
    for index, image in enumerate(images):
        maps = enlarged(np.stack([heat[index], *(one[index] for one in noise), partners[index]]), side)
        orders = [_hottest_first(one, random) for one in maps]
        found = _scores(trained, image, int(classes[index]), orders, steps)
        for kind in KINDS:
            rows[kind][OWN].append(found[kind][0])
            rows[kind][RANDOM].append(found[kind][1:-1].mean(axis=0))
            rows[kind][OTHER].append(found[kind][-1])
        advance(1)
    return Curves(shares, {kind: {name: np.stack(scores) for name, scores in rows[kind].items()} for kind in KINDS})


def judge_curves(
    curves: Curves, classes: np.ndarray, clusters: np.ndarray, names: Sequence[str] = CLASS_NAMES
) -> list[Verdict]:
    """Returns the verdicts of insertion and deletion by the rules above.

    `classes`, int [N], are those explained, indices into `names`; `clusters`, int [N], number the groups.
    """
    return [_judge(curves, kind, classes, clusters, names) for kind in KINDS]


def other_of_class(classes: np.ndarray) -> np.ndarray:
    """Returns int [N]: for every image the row of another one explained for the same class, its own if it is alone."""
    partners = np.arange(len(classes))
    for value in np.unique(classes):
        rows = np.flatnonzero(classes == value)
        partners[rows] = np.roll(rows, 1)
    return partners


def blurred(image: np.ndarray) -> np.ndarray:
    """Returns the image uint8 [S, S] that insertion begins with."""
    return cv2.GaussianBlur(image, (0, 0), _BLUR * image.shape[0])


def _hottest_first(heat: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns the pixels [S * S] of a map from the hottest to the coldest, those of equal heat by lot."""
    return np.lexsort((random.random(heat.size), -heat.ravel()))


def _scores(
    trained: TrainedModel, image: np.ndarray, explained: int, orders: list[np.ndarray], steps: int
) -> Mapping[str, np.ndarray]:
    """Returns for each of KINDS the probability of class `explained` float64 [M, steps + 1], by M orders of pixels."""
    blur, grey = blurred(image), np.full_like(image, round(float(image.mean())))
    changed = [image, blur, grey]
    for start, end in ((blur, image), (image, grey)):
        for order in orders:
            for part in range(1, steps):
                pixels = order[: round(part / steps * order.size)]
                one = start.flatten()
                one[pixels] = end.ravel()[pixels]
                changed.append(one.reshape(image.shape))
    # Two equal batches: small enough for a processor's cache, with one padded image at most.
    logits = trained.logits(np.stack(changed), batch_size=(len(changed) + 1) // 2)
    score = _probability(trained.description, logits, explained)
    inner = score[3:].reshape(len(KINDS), len(orders), steps - 1)
    full, blank, greyed = (np.full((len(orders), 1), value) for value in score[:3])
    return {
        "insertion": np.concatenate([blank, inner[0], full], axis=1),
        "deletion": np.concatenate([full, inner[1], greyed], axis=1),
    }


def _probability(description: NetworkDescription, logits: np.ndarray, explained: int) -> np.ndarray:
    """Returns the probability [N] of one class, or of one finding, of logits [N, K]."""
    if description.kind == FINDINGS:
        return sigmoid_of(logits)[:, explained]
    if description.classes != CLASS_NAMES:
        return softmax_of(logits)[:, explained]
    probability = probability_of(logits)
    return probability if explained == PNEUMONIA else 1 - probability


def _judge(curves: Curves, kind: str, classes: np.ndarray, clusters: np.ndarray, names: Sequence[str]) -> Verdict:
    own, random, other = (curves.areas(kind, name) for name in (OWN, RANDOM, OTHER))
    means = means_by_class(own - random, classes, clusters, names)
    beyond = mean_over_images(own - other, clusters)
    scores = curves.scores[kind][OWN]
    ends = {name: scores[rows][:, [0, -1]].mean(axis=0) for name, rows in judged_classes(classes, names).items()}
    ways = " and ".join(f"from {start:.2f} to {end:.2f} for {name}" for name, (start, end) in ends.items())
    told = (
        f"The area is {own.mean():.3f}, with random maps {random.mean():.3f}; less that with the map of another image "
        f"it is {with_interval(beyond.value, beyond, '+.3f', word=TO)}. On the way the probability goes {ways}."
    )
    sign = 1 if kind == "insertion" else -1
    return CHECKS[kind].verdict(
        means,
        lambda mean: mean.low > 0 if kind == "insertion" else mean.high < 0,
        told,
        provided=all(sign * (end - start) >= LEAST_CHANGE for start, end in ends.values()),
    )
