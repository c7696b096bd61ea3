"""The cells of a comparison's tables: a metric of a recipe, or of a pair, with how sure it is."""

from __future__ import annotations

import math

from cxr_jax.evaluation.comparison_record import RESOLUTION, Answer, EndpointSummary, Pair
from cxr_jax.evaluation.numbers import TO, interval_text, number_text, with_deviation, with_interval

NOTHING = "–"
"""What stands where nothing is known."""

RATES = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "negative_predictive_value", "f1")
"""Metrics that are printed in percent."""


def is_rate(metric: str) -> bool:
    """Returns True for a metric that is printed in percent, of one class or the mean over classes."""
    return metric.removeprefix("macro_").removeprefix("micro_") in RATES


def pair_cell(answer: Answer | None, metric: str) -> str:
    """Returns difference, interval and corrected p-values, a line each."""
    if answer is None:
        return NOTHING
    return "\n".join([number_text(answer.difference, *_form(metric, "+")), *_evidence(answer, metric)])


def ruled_pair_cell(pair: Pair, metric: str) -> str:
    """Returns the difference at the operating point, and how sure it is by the rule and at these thresholds."""
    answer, ruled = pair.endpoints[f"{metric}@operating_point"], pair.endpoints.get(f"{metric}@rule")
    if answer is None:
        return NOTHING
    lines = [number_text(answer.difference, *_form(metric, "+"))]
    if ruled is not None:
        lines += _evidence(ruled, metric)
    return "\n".join([*lines, "these thresholds", *_evidence(answer, metric)])


def _evidence(answer: Answer, metric: str) -> list[str]:
    """Returns interval and corrected p-values of a difference."""
    retrained, lines = answer.over_seeds, []
    if answer.ends is not None:
        lines.append(interval_text(answer.ends, *_form(metric, "+"), word=TO))
    if retrained is not None:
        lines.append(f"p {p_text(retrained.adjusted_p_value)} retrained")
    if answer.adjusted_p_value is not None:
        lines.append(f"p {p_text(answer.adjusted_p_value, bounded=answer.is_bounded)} as trained")
    return lines


def value_cell(summary: EndpointSummary | None, metric: str) -> str:
    """Returns mean, deviation and below them the interval."""
    if summary is None:
        return NOTHING
    return f"{_mean(summary, metric)}\n{_ends(summary, metric)}".rstrip()


def ruled_cell(given: EndpointSummary | None, ruled: EndpointSummary | None, metric: str) -> str:
    """Returns mean, deviation and below them the intervals for the rule and for the thresholds."""
    if given is None:
        return NOTHING
    lines = [_mean(given, metric)]
    for name, summary in (("rule", ruled), ("threshold", given)):
        if summary is not None and summary.interval is not None:
            lines.append(f"{name} {_ends(summary, metric)}")
    return "\n".join(lines)


def _ends(summary: EndpointSummary, metric: str) -> str:
    return interval_text(summary.interval, *_form(metric))


def _mean(summary: EndpointSummary, metric: str) -> str:
    return with_deviation(summary.mean, summary.deviation, *_form(metric))


def metric_text(value: float, metric: str) -> str:
    """Returns a value of a metric, shares in percent."""
    return number_text(value, *_form(metric))


def _form(metric: str, sign: str = "") -> tuple[str, float]:
    """Returns form and factor of a metric's numbers, as `number_text` takes them."""
    return (f"{sign}.1f", 100) if is_rate(metric) else (f"{sign}.3f", 1)


def mean_text(summary: EndpointSummary, form: str = ".3f", factor: float = 1) -> str:
    """Returns mean, deviation and interval of an endpoint in one line."""
    told = with_deviation(summary.mean, summary.deviation, form, factor)
    return f"{told} {interval_text(summary.interval, form, factor, word=TO)}".rstrip()


def difference_text(answer: Answer, form: str = "+.3f", factor: float = 1) -> str:
    """Returns difference, interval and corrected p-value in one line, for other seeds where there are enough."""
    p_value = (answer.over_seeds or answer).adjusted_p_value
    told = "" if p_value is None else f", p {p_text(p_value)}"
    return with_interval(answer.difference, answer.ends, form, factor, word=TO) + told


def p_text(value: float, *, bounded: bool = False) -> str:
    """Returns a p-value; after `<` one that is only known to lie below, rounded up."""
    if value < RESOLUTION:
        return f"< {RESOLUTION:g}"
    return f"< {math.ceil(1000 * value) / 1000:.3f}" if bounded else f"{value:.3f}"


def threshold_text(value: float) -> str:
    """Returns three digits, or as many as a threshold just below 1 needs not to look like 1."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 17))
    return next((text for text in texts if float(text) < 1), "1")
