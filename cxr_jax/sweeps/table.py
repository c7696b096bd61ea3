"""The comparison of a sweep's variants as tables: Markdown, CSV and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import HORIZONTALS
from rich.table import Table

from cxr_jax.evaluation.numbers import TO, with_deviation, with_interval
from cxr_jax.reporting.tables import markdown_table
from cxr_jax.runs.files import csv_text_of_records, write_text
from cxr_jax.sweeps.runs import SUMMARY_FILE
from cxr_jax.sweeps.summary import Figure, Summary, VariantSummary, write_summary
from cxr_jax.sweeps.sweep import BASE

MARKDOWN, CSV = "sweep.md", "sweep.csv"
"""Files of a sweep's tables, beside what `SUMMARY_FILE` names."""

_NOTHING = "–"
_CSV_COLUMNS = ("variant", "seeds", "minutes", "figure", "mean", "deviation")
_CSV_DIFFERENCE = ("difference", "low", "high", "p_value", "paired_seeds")


def write_tables(summary: Summary, folder: Path) -> list[Path]:
    """Writes the tables of a sweep into its folder, replacing older ones, and returns their paths.

    Raises:
        UserError: one cannot be written.
    """
    write_summary(folder / SUMMARY_FILE, summary)
    write_text(folder / MARKDOWN, sweep_markdown(summary))
    write_text(folder / CSV, sweep_csv(summary))
    return [folder / name for name in (MARKDOWN, CSV, SUMMARY_FILE)]


def sweep_markdown(summary: Summary) -> str:
    """Returns the comparison as Markdown: title, table, notes."""
    rows = [[cell.replace("\n", "<br>") for cell in row] for row in _rows(summary)]
    return "\n\n".join([f"# {summary.sweep}", markdown_table(rows).rstrip(), *notes(summary)]) + "\n"


def terminal_table(summary: Summary) -> Table:
    """Returns the comparison as a table for the terminal, without its notes."""
    header, *rows = _rows(summary)
    table = Table(box=HORIZONTALS, show_lines=True)
    table.add_column(header[0], overflow="fold")
    for name in header[1:]:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def sweep_csv(summary: Summary) -> str:
    """Returns every figure of every variant as CSV, one row each; `seed0`, `seed1` ... are the values themselves."""
    seeds = sorted({int(seed) for variant in summary.variants for seed in variant.runs})
    columns = [*_CSV_COLUMNS, *_CSV_DIFFERENCE, *(f"seed{seed}" for seed in seeds)]
    names = _figure_names(summary)
    found = [_csv_row(variant, name) for variant in summary.variants for name in names if name in variant.figures]
    return csv_text_of_records(columns, found)


def _csv_row(variant: VariantSummary, name: str) -> dict[str, Any]:
    figure = variant.figures[name]
    row = {
        "variant": variant.name,
        "seeds": len(variant.seeds),
        "minutes": variant.minutes.mean,
        "figure": name,
        "mean": figure.mean,
        "deviation": figure.deviation,
        **{f"seed{seed}": value for seed, value in figure.values.items()},
    }
    if (difference := figure.difference) is not None:
        row |= {"difference": difference.value, "p_value": difference.p_value, "paired_seeds": len(difference.seeds)}
        if difference.interval is not None:
            row |= {"low": difference.interval.low, "high": difference.interval.high}
    return row


def notes(summary: Summary) -> list[str]:
    """Returns what must be said of the table, a paragraph each."""
    checkpoints = " or ".join(summary.checkpoints)
    level, count = f"{100 * summary.level:g} %", len(summary.variants)
    others = f"; {count - 1} variants are compared with {BASE}, which the intervals are not corrected for"
    found = [
        "Validation only: nothing here has seen the test split. Figures are those of the validation at the "
        f"{checkpoints} checkpoint of each run, named as in metrics.jsonl; sorted by {summary.monitor}.",
        "Mean ± standard deviation over seeds. Below it the difference to the base, paired by seed, with its "
        f"{level} t interval: for other seeds, on the same validation images{others if count > 2 else ''}.",
        f"{summary.finished} of {summary.planned} runs of {count} variants stand behind this table."
        + (f" Not finished: {_listed(summary.unfinished)}." if summary.unfinished else ""),
    ]
    if summary.mean_over == "findings":
        found.append("roc_auc is the mean over the findings that validation has both with and without (macro).")
    elif summary.mean_over:
        found.append("roc_auc is the mean over the classes, each against the rest (macro).")
    if summary.no_longer_named:
        told = [f"{name} ({runs})" for name, runs in summary.no_longer_named.items()]
        found.append(f"The folder also holds runs that {summary.sweep} does not name, by variant: {_listed(told)}.")
    if summary.other_validation:
        names = _listed(summary.other_validation)
        found.append(f"Validated on other images than the base, with which they do not compare: {names}.")
    if summary.different_data:
        names = ", ".join(summary.different_data)
        found.append(f"The runs saw different versions of the data ({names}): their figures do not compare.")
    return found


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rows(summary: Summary) -> list[list[str]]:
    """Returns header and one row a variant; a cell may have several lines."""
    names = _figure_names(summary)
    rows = [["variant", "seeds", *names, "minutes"]]
    for variant in summary.variants:
        minutes = variant.minutes
        cells = [_cell(variant.figures.get(name), len(variant.seeds)) for name in names]
        told = _NOTHING if minutes is None else f"{minutes.mean:.1f}"
        rows.append([variant.name, str(len(variant.seeds)), *cells, told])
    return rows


def _figure_names(summary: Summary) -> list[str]:
    """Returns every figure that a variant has, the monitored one first."""
    names = dict.fromkeys(name for variant in summary.variants for name in variant.figures)
    return sorted(names, key=lambda name: name != summary.monitor)


def _cell(figure: Figure | None, seeds: int) -> str:
    """Returns the mean and deviation, below them the difference and its interval."""
    if figure is None:
        return _NOTHING
    text = with_deviation(figure.mean, figure.deviation, ".4f")
    if len(figure.values) < seeds:
        text += f" ({len(figure.values)} of {seeds})"
    difference = figure.difference
    if difference is None:
        return text
    return f"{text}\n{with_interval(difference.value, difference.interval, '+.4f', word=TO)}"
