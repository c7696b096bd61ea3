"""Where every number of a report comes from: the function that computes it, and that function's own words for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cxr_jax.evaluation.calibration import expected_calibration_error, fit_temperature, reliability_curve
from cxr_jax.evaluation.decision_curve import net_benefit
from cxr_jax.evaluation.intervals import (
    absolute_sum_interval,
    bootstrap_weights,
    delong_covariance,
    obuchowski_covariance,
    percentile_interval,
    wilson_interval,
    wilson_interval_of_groups,
)
from cxr_jax.evaluation.metrics import METRICS, definition_of, specificity_at_sensitivity
from cxr_jax.evaluation.operating_point import choose_threshold
from cxr_jax.evaluation.shift import prior_correction, score_shift, split_drop

SOURCES: tuple[tuple[str, Callable[..., Any]], ...] = (
    *((metric.title, metric.function) for metric in METRICS.values()),
    ("Specificity at a given sensitivity", specificity_at_sensitivity),
    ("Interval, Obuchowski", obuchowski_covariance),
    ("Interval, DeLong", delong_covariance),
    ("Interval, group bootstrap: the resamples", bootstrap_weights),
    ("Interval, group bootstrap: its ends", percentile_interval),
    ("Interval of a calibration error", absolute_sum_interval),
    ("Interval, Wilson", wilson_interval),
    ("Interval, Wilson by groups", wilson_interval_of_groups),
    ("Threshold", choose_threshold),
    ("Temperature", fit_temperature),
    ("Calibration error", expected_calibration_error),
    ("Reliability", reliability_curve),
    ("Net benefit", net_benefit),
    ("Scores that moved", score_shift),
    ("Fall from validation to test", split_drop),
    ("Correction of the prior", prior_correction),
)
"""Title and function of every number that is computed from the predictions table."""


@dataclass(frozen=True)
class Definition:
    """What a number is called in the report, the function that computes it, and what that function says of it."""

    title: str
    function: str
    text: str


def definitions() -> list[Definition]:
    """Return the definition of every number of SOURCES, in their order."""
    return [
        Definition(title, f"{function.__module__}.{function.__qualname__}", definition_of(function))
        for title, function in SOURCES
    ]
