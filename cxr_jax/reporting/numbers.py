"""How a number stands in a text with its interval, the same in tables, legends and sentences."""

from __future__ import annotations

from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.measures import Measured


def measured_text(measured: Measured, digits: int = 3) -> str:
    """Returns a measure as `0.912 (0.888–0.938)`, without interval where it has none, `undefined` without value."""
    if measured.value is None:
        return "undefined"
    return f"{measured.value:.{digits}f} {interval_text(measured.interval, digits)}".rstrip()


def interval_text(interval: Interval | None, digits: int = 3, factor: float = 1) -> str:
    """Returns an interval as `(0.888–0.938)`, its ends times `factor`; nothing where there is none."""
    if interval is None:
        return ""
    return f"({factor * interval.low:.{digits}f}–{factor * interval.high:.{digits}f})"
