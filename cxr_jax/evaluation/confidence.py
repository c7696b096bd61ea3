"""How sure a report's intervals are: a module without imports, whose defaults are also those of command lines."""

from __future__ import annotations

from dataclasses import dataclass

RESAMPLES = 2000
"""Bootstrap resamples of a report: the ends of a 95 % interval then vary by about a tenth of its width."""

LEVEL = 0.95
"""Confidence level of every interval of a report."""


@dataclass(frozen=True)
class Confidence:
    """How intervals are computed: their level, the number of bootstrap resamples and the seed of the draw."""

    level: float = LEVEL
    resamples: int = RESAMPLES
    seed: int = 0
