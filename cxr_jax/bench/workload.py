"""What a case is once it is compiled: a step that can be repeated, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_jax.images.image_set import ImageSet
from cxr_jax.vocabulary import CLASS_NAMES

DISTINCT_BATCHES = 4
"""Batches that the steps cycle through, so that no step finds its input where it left it."""


@dataclass(frozen=True)
class Workload:
    """A program ready to be timed."""

    step: Callable[[], None]  # runs one step on the next batch and returns when all its results are there
    facts: dict[str, Any]  # ready for JSON
    device_peak_bytes: Callable[[], int | None]  # most memory used on the accelerator; None on a CPU


def noise_images(count: int, image_size: int, seed: int = 0) -> ImageSet:
    """Returns `count` images of noise, [N, S, S] uint8 in 0..255, with labels; the same for equal arguments."""
    generator = np.random.default_rng(seed)
    return ImageSet(
        images=generator.integers(0, 256, (count, image_size, image_size), np.uint8),
        labels=generator.integers(0, len(CLASS_NAMES), count, np.int32),
        ids=np.arange(count, dtype=np.int32),
        files=("",) * count,
        groups=("",) * count,
        subtypes=("",) * count,
    )
