"""The comparison of two programs on the same findings, as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from cxr_jax.evaluation.compare_findings import FindingComparison, PairedMetric
from cxr_jax.evaluation.numbers import TO, number_text, with_interval
from cxr_jax.terminal import Terminal


def show_finding_comparison(terminal: Terminal, comparison: FindingComparison) -> None:
    """Prints the differences of all findings together, and of each."""
    groups = "" if comparison.groups is None else f" of {comparison.groups:,} groups"
    level = f"{100 * comparison.confidence.level:g} %"
    title = (
        f"{comparison.images:,} images{groups}; differences are {comparison.first} minus {comparison.second}, {level}"
    )
    together = _table(comparison, title, "All findings together", adjusted=False)
    for metric in comparison.together.values():
        together.add_row(metric.title, *_cells(metric, adjusted=False))
    terminal.show(together)
    for name in ("roc_auc", "average_precision"):
        titles = [metrics[name].title for metrics in comparison.findings.values()]
        table = _table(comparison, titles[0] if titles else name, "Finding", adjusted=True)
        for finding, metrics in comparison.findings.items():
            table.add_row(finding, *_cells(metrics[name], adjusted=True))
        terminal.show(table)
    terminal.say(
        "P-values are two-sided, for other patients and these very networks; those of findings are adjusted by Holm's "
        "method for as many findings as there are."
    )


def _table(comparison: FindingComparison, title: str, first: str, *, adjusted: bool) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in (comparison.first, comparison.second, "Difference", "p, adjusted" if adjusted else "p"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cells(metric: PairedMetric, *, adjusted: bool) -> list[str]:
    """Returns both values, the difference with its interval, and the p-value."""
    if metric.difference is None:
        return ["undefined", "undefined", "undefined", ""]
    p_value = metric.adjusted if adjusted else metric.p_value
    told = "" if p_value is None else "below 0.001" if p_value < 0.001 else f"{p_value:.3f}"
    difference = with_interval(metric.difference, metric.interval, "+.3f", word=TO)
    return [number_text(metric.first), number_text(metric.second), difference, told]
