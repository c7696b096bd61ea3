"""How sure a report's intervals are: a module of few imports, whose defaults are also those of command lines."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_jax.errors import UserError

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


def confidence_of(resamples: str = "") -> Confidence:
    """Returns the usual confidence, with as many resamples as the text says; UserError where it says no such number."""
    if resamples and not (resamples.isdecimal() and int(resamples) >= 100):
        raise UserError(f"{resamples!r} is no number of resamples: give a whole number from 100 on")
    return Confidence(resamples=int(resamples)) if resamples else Confidence()
