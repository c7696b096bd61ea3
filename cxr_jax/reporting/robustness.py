"""What is told of a network on degraded images: in the terminal, and in the report."""

from __future__ import annotations

from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import TO, interval_text, measured_text
from cxr_jax.evaluation.robustness import Robustness, told_kinds

SHOWN = ("roc_auc", "sensitivity", "specificity", "uncertain", "unlike")


def robustness_rows(robustness: Robustness) -> list[str]:
    """Returns a table of lines: every kind with its rates at the mildest and the worst severity."""
    means = f", means over {', '.join(robustness.classes)}" if robustness.classes else ""
    lines = [f"{robustness.images:,} images of {robustness.split}, at severity 1 and 5{means}:"]
    lines.append(f"{'':12} {'ROC-AUC':>15} {'sensitivity':>15} {'specificity':>15} {'mean error':>11}")
    clean = robustness.clean
    rates = [_number(getattr(clean, name)) for name in SHOWN[:3]]
    lines.append(f"{'clean':12} {rates[0]:>15} {rates[1]:>15} {rates[2]:>15} {_percent(clean.error):>11}")
    for told in told_kinds(robustness):
        pairs = [f"{_number(getattr(told.mild, name))} to {_number(getattr(told.worst, name))}" for name in SHOWN[:3]]
        lines.append(f"{told.name:12} {pairs[0]:>15} {pairs[1]:>15} {pairs[2]:>15} {_percent(told.error):>11}")
    interval = interval_text(robustness.mean_error_interval, ".1%")
    told = f"Mean error (1 minus balanced accuracy) over all kinds: {_percent(robustness.mean_error)} {interval}"
    lines.append(told.rstrip())
    if robustness.mean_corruption_error is not None:
        lines.append(
            f"Mean corruption error relative to {robustness.reference}: {robustness.mean_corruption_error:.1%} (below "
            "100 %: less is lost)"
        )
    if robustness.less_reference is not None:
        less = measured_text(robustness.less_reference, "+.1%", word=TO)
        lines.append(f"Mean error less that of {robustness.reference}, paired by image: {less}")
    if robustness.classes:
        lines.append("Each by itself, at its own threshold: figures as they are, and the means over all kinds:")
    for name, found in robustness.classes.items():
        figures = [_number(found.clean.roc_auc), mean_area(found), _percent(found.clean.error)]
        row = f"ROC-AUC {figures[0]} to {figures[1]}, error {figures[2]:>5} to {_percent(found.mean_error)}"
        lines.append(f"{name:17} {row}")
    return lines


def mean_area(robustness: Robustness) -> str:
    """Returns the mean ROC-AUC on degraded images over severities and kinds, which have as many each."""
    values = [level.roc_auc.value for level in robustness.levels]
    return "-" if None in values else f"{sum(values) / len(values):.3f}"


def _number(measured: Measured) -> str:
    return "-" if measured.value is None else f"{measured.value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
