"""The judgement of a generator's samples: whether they are like real images, as diverse as these, and no copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.kernel_distance import KernelDistance
from cxr_jax.evaluation.memorisation import NEAR, Memorisation

SCHEMA_VERSION = 1
"""Version of the evaluation.json of a generator."""

_ERRORS = 2
"""Standard errors that a difference counts from."""

FEWEST_PAIRS = 10
"""With fewer pairs of images nothing is said of diversity: their standard error says too little."""


@dataclass(frozen=True)
class Likeness:
    """The mean similarity (MS-SSIM) of pairs of images, no image in two; the higher, the less diverse they are."""

    mean: float
    standard_error: float
    pairs: int


@dataclass(frozen=True)
class JudgedSamples:
    """What the samples of a generator are worth, by train and validation alone.

    Attributes:
        samples: how many were judged.
        training_images: how many the generator learned from.
        held_out_images: how many of its class validation has.
        image_size: side of all of them, in pixels.
        network: whose features count.
        pretrained: whether that network's weights are of a file; features of a random one say little.
        scales: of MS-SSIM; smaller images have fewer than five.
        distance: of samples from training images, in the features; None with too few images.
        distance_of_halves: of one half of the training images from the other, no group in both; what chance gives.
        samples_alike: pairs of samples.
        real_alike: pairs of training images.
        in_pixels: nearest training images by grey levels, from 0 to 255.
        in_features: nearest training images by the features.
        verdict: sentences.
    """

    samples: int
    training_images: int
    held_out_images: int
    image_size: int
    network: str
    pretrained: bool
    scales: int
    distance: KernelDistance | None
    distance_of_halves: KernelDistance | None
    samples_alike: Likeness
    real_alike: Likeness
    in_pixels: Memorisation
    in_features: Memorisation
    verdict: tuple[str, ...] = ()


def likeness(similarities: np.ndarray) -> Likeness:
    """Returns the mean of the similarities [N] of N pairs, and its standard error, for pairs that share nothing."""
    count = len(similarities)
    spread = float(np.std(similarities, ddof=1)) if count > 1 else 0.0
    return Likeness(float(np.mean(similarities)), spread / count**0.5, count)


def verdict_of(judged: JudgedSamples) -> tuple[str, ...]:
    """Returns what the figures say, in sentences: of likeness, diversity and copies."""
    told = [_told_distance(judged), _told_diversity(judged)]
    for where, found in (("grey levels", judged.in_pixels), ("features", judged.in_features)):
        beside = (
            f"{found.share:.1%} of the samples are nearer to a training image, by {where}, than the nearest {NEAR:.0%} "
            "of real images held out"
        )
        copies = "Copies: the generator repeats training images" if found.copies else "No copies were found"
        told.append(f"{copies}: {beside}.")
    return tuple(told)


def _told_distance(judged: JudgedSamples) -> str:
    made, chance = judged.distance, judged.distance_of_halves
    if made is None or chance is None:
        return "There are too few images to tell whether samples are like real ones."
    of = judged.network if judged.pretrained else f"{judged.network}, which is not pretrained, so that they say little"
    figures = (
        f"KID {made.value:.3g} ± {made.standard_error:.3g}, and {chance.value:.3g} ± {chance.standard_error:.3g} "
        f"between halves of the training images, in the features of {of}"
    )
    error = (made.standard_error**2 + chance.standard_error**2) ** 0.5
    if made.value - chance.value > _ERRORS * error:
        return f"Unlike real images: the network tells samples from them ({figures})."
    return f"No difference from real images was found ({figures})."


def _told_diversity(judged: JudgedSamples) -> str:
    made, real = judged.samples_alike, judged.real_alike
    figures = (
        f"MS-SSIM of pairs over {judged.scales} scale{'s' if judged.scales > 1 else ''}: {made.mean:.3f} ± "
        f"{made.standard_error:.3f} of samples, {real.mean:.3f} ± {real.standard_error:.3f} of training images"
    )
    if min(made.pairs, real.pairs) < FEWEST_PAIRS:
        return f"There are too few images to tell how diverse samples are ({figures})."
    error = (made.standard_error**2 + real.standard_error**2) ** 0.5
    if made.mean - real.mean > _ERRORS * error:
        return f"Less diverse than real images ({figures})."
    return f"No less diverse than real images ({figures})."
