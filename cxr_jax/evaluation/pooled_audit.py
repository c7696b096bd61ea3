"""Do errors of a recipe go with the quality of the image? The audits of its runs, pooled over its seeds.

The runs of a recipe are judged on the same images, and mostly err on the same. Their estimates are therefore taken to
move together from one sample of patients to another, which is the widest that the interval of their mean can be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

from cxr_jax.evaluation.confidence import LEVEL
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.paired import holm
from cxr_jax.evaluation.quality_audit import SIGNIFICANT, Chance, ErrorAudit, MeasureComparison, Verdict
from cxr_jax.evaluation.seeds import interval_over_seeds

_UNBOUNDED = (-np.inf, np.inf)
_CHANCE = 0.5


@dataclass(frozen=True)
class PooledMeasure:
    """How one measure differs between the wrongly and the rightly called images of a class, over seeds.

    Attributes:
        differences: mean over the wrongly called minus mean over the rightly called, by seed.
        difference: their mean.
        interval: of `difference`, for other patients and, where there are several seeds, other seeds.
        higher: the mean chance that an error has the higher value, with such an interval.
        p_value: of that chance being 0.5, two-sided; None where a seed was not tested.
        adjusted_p_value: adjusted over the measures that are compared (Holm 1979).
        verdict: of the chance, by the adjusted p-value.
    """

    differences: tuple[float, ...]
    difference: float
    interval: Interval | None
    higher: Chance
    p_value: float | None
    adjusted_p_value: float | None
    verdict: Verdict

    @property
    def higher_in(self) -> int:
        """The number of seeds in which the wrongly called have the higher mean."""
        return sum(difference > 0 for difference in self.differences)


@dataclass(frozen=True)
class PooledAudit:
    """One kind of error of a recipe: counts by seed, and each measure compared; None where a seed compares nothing."""

    errors: tuple[int, ...]
    right: tuple[int, ...]
    measures: dict[str, PooledMeasure | None]

    @property
    def tested(self) -> int:
        """The number of measures that were tested, which p-values are adjusted for."""
        return sum(entry is not None and entry.p_value is not None for entry in self.measures.values())


def pool_audits(audits: Sequence[ErrorAudit], level: float = LEVEL) -> PooledAudit:
    """Returns the audits of one kind of error, one a seed, as that of their recipe; `level` is that of all intervals.

    Measures are those that every seed has.
    """
    names = [name for name in audits[0].measures if all(name in audit.measures for audit in audits)]
    pooled = {name: _pooled([audit.measures[name] for audit in audits], level) for name in names}
    tested = [name for name, entry in pooled.items() if entry is not None and entry.p_value is not None]
    adjusted = holm([pooled[name].p_value for name in tested])
    for name, p_value in zip(tested, adjusted, strict=True):
        direction: Verdict = "higher" if pooled[name].higher.value > _CHANCE else "lower"
        verdict = direction if p_value < SIGNIFICANT else "not shown"
        pooled[name] = dataclasses.replace(pooled[name], adjusted_p_value=p_value, verdict=verdict)
    return PooledAudit(
        errors=tuple(audit.errors for audit in audits),
        right=tuple(audit.right for audit in audits),
        measures=pooled,
    )


def _pooled(entries: Sequence[MeasureComparison | None], level: float) -> PooledMeasure | None:
    """Returns one measure over seeds, before p-values are adjusted; None where a seed compares nothing."""
    known = [entry for entry in entries if entry is not None]
    if len(known) < len(entries):
        return None
    differences = [entry.difference for entry in known]
    chances = [entry.higher.value for entry in known]
    higher = interval_over_seeds(chances, _mean_ends([entry.higher.interval for entry in known]), level, _UNBOUNDED)
    tested = higher is not None and all(entry.p_value is not None for entry in known)
    return PooledMeasure(
        differences=tuple(differences),
        difference=float(np.mean(differences)),
        interval=interval_over_seeds(differences, _mean_ends([entry.interval for entry in known]), level, _UNBOUNDED),
        higher=Chance(
            float(np.mean(chances)),
            higher and dataclasses.replace(higher, low=max(higher.low, 0.0), high=min(higher.high, 1.0)),
        ),
        p_value=_p_value(chances, [entry.higher for entry in known], level) if tested else None,
        adjusted_p_value=None,
        verdict="not tested",
    )


def _mean_ends(intervals: Sequence[Interval | None]) -> Interval | None:
    """Returns the interval of a mean of estimates that move together; None where one has none."""
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    ends = [float(np.mean([getattr(interval, end) for interval in known])) for end in ("low", "high")]
    return Interval(*ends, known[0].method)


def _p_value(chances: Sequence[float], entries: Sequence[Chance], level: float) -> float:
    """Returns the smallest 1 - level at which the interval of the mean chance leaves 0.5 out."""
    # an end may be cut at 0 or 1, and then the other tells the error
    halves = [max(entry.value - entry.interval.low, entry.interval.high - entry.value) for entry in entries]
    error = float(np.mean(halves) / norm.ppf((1 + level) / 2))
    count = len(chances)
    spread = float(np.std(chances, ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    distance = abs(float(np.mean(chances)) - _CHANCE)

    def beyond(p_value: float) -> float:
        of_seeds = t.isf(p_value / 2, count - 1) * spread if spread > 0 else 0.0
        return float(np.hypot(norm.isf(p_value / 2) * error, of_seeds)) - distance

    smallest = 1e-12
    return smallest if beyond(smallest) <= 0 else float(brentq(beyond, smallest, 1.0))
