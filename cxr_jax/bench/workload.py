"""What a case is once it is compiled: a step that can be repeated, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr_jax.data.batches import Batch
from cxr_jax.vocabulary import CLASS_NAMES

DISTINCT_BATCHES = 4
"""Batches that the steps cycle through, so that no step finds its input where it left it."""


def _unknown() -> int | None:
    return None


@dataclass(frozen=True)
class Workload:
    """A program ready to be timed."""

    step: Callable[[], None]  # runs one step on the next batch and returns when all its results are there
    facts: dict[str, Any] = field(default_factory=dict)  # ready for JSON
    device_peak_bytes: Callable[[], int | None] = _unknown  # most memory used on the accelerator; None on a CPU


def cycling_batches(batch_size: int, image_size: int, seed: int = 0) -> Iterator[Batch]:
    """Endless batches of noise, [B, S, S] uint8 in 0..255 with labels and ids; the same for equal arguments."""
    generator = np.random.default_rng(seed)
    batches = [
        Batch(
            images=generator.integers(0, 256, (batch_size, image_size, image_size), np.uint8),
            labels=generator.integers(0, len(CLASS_NAMES), batch_size, np.int32),
            ids=np.arange(index * batch_size, (index + 1) * batch_size, dtype=np.int32),
        )
        for index in range(DISTINCT_BATCHES)
    ]
    while True:
        yield from batches
