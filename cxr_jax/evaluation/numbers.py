"""How a number stands in a text with its interval, the same in tables, legends and sentences.

Digits, sign, thousands and per cent are those of a `form`, as Python has it: `.3f`, `+.1f`, `,.0f`, `.1%`. A number
is multiplied by `factor` first: 100 writes a share in points, as a table does whose header says per cent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cxr_jax.evaluation.measures import Measured

DASH, TO = "–", " to "
"""What stands between the ends of an interval: in narrow cells, and in sentences or where an end may be negative."""


class Ends(Protocol):
    """Anything that has the ends of an interval."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def number_text(value: float, form: str = ".3f", factor: float = 1) -> str:
    """Returns a number as text, with a minus that is as wide as a plus."""
    return format(factor * value, form).replace("-", "−")


def range_text(low: float, high: float, form: str = ".3f", factor: float = 1, *, word: str = DASH) -> str:
    """Returns two ends as `0.888–0.938`, or with another `word` between them."""
    return word.join([number_text(low, form, factor), number_text(high, form, factor)])


def interval_text(interval: Ends | None, form: str = ".3f", factor: float = 1, *, word: str = DASH) -> str:
    """Returns an interval as `(0.888–0.938)`; nothing where there is none."""
    return "" if interval is None else f"({range_text(interval.low, interval.high, form, factor, word=word)})"


def with_interval(
    value: float, interval: Ends | None, form: str = ".3f", factor: float = 1, *, word: str = DASH
) -> str:
    """Returns a number and its interval as `0.912 (0.888–0.938)`, without interval where it has none."""
    return f"{number_text(value, form, factor)} {interval_text(interval, form, factor, word=word)}".rstrip()


def with_deviation(value: float, deviation: float | None, form: str = ".3f", factor: float = 1) -> str:
    """Returns a mean and its standard deviation as `0.912 ± 0.004`, without deviation where it has none."""
    told = number_text(value, form, factor)
    return told if deviation is None else f"{told} ± {number_text(deviation, form, factor)}"


def measured_text(measured: Measured, form: str = ".3f", *, word: str = DASH) -> str:
    """Returns a measure as `with_interval` has it, `undefined` without value."""
    return "undefined" if measured.value is None else with_interval(measured.value, measured.interval, form, word=word)
