"""Tables of results: a judgement in the terminal, and many runs side by side in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from cxr_jax.errors import UserError
from cxr_jax.evaluation.alignment import AlignedCalls
from cxr_jax.evaluation.judgement import Confusion, Judgement, read_judgement
from cxr_jax.evaluation.numbers import interval_text, measured_text, with_deviation
from cxr_jax.evaluation.seeds import Spread, interval_over_seeds, mean_auc_interval, same_images, spread
from cxr_jax.reporting.published import Published
from cxr_jax.reporting.training_time import wall_seconds
from cxr_jax.runs.ensemble import is_ensemble
from cxr_jax.runs.files import write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.runs.recipes import recipe_names

_RATES = ("accuracy", "sensitivity", "specificity")

_COUNTS = "TN / FP / FN / TP"
"""The counts of a confusion matrix, row by row."""


def judgement_table(judgement: Judgement) -> Table:
    """Returns a judgement as a table for the terminal: every metric with its interval, test beside validation."""
    threshold = judgement.operating_point.threshold
    level = f"{100 * judgement.confidence.level:g} %"
    table = Table(
        title=f"{judgement.test.images:,} test images, threshold {threshold:.4g}, {level} intervals",
        title_justify="left",
    )
    header, *rows = _judgement_rows(judgement)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=bool(index))
    for row in rows:
        table.add_row(*row)
    if judgement.warnings:
        table.caption = "\n".join(judgement.warnings)
        table.caption_justify = "left"
    return table


def alignment_table(aligned: AlignedCalls) -> Table:
    """Returns what calls reach on aligned probabilities as a table for the terminal, marked as transductive."""
    table = Table(
        title=f"Transductive: aligned to a declared share of PNEUMONIA of {aligned.prevalence:.1%}, threshold "
        f"{aligned.threshold:.4g}",
        title_justify="left",
    )
    table.add_column("Metric")
    table.add_column("Test, aligned", justify="right", no_wrap=True)
    for measured in aligned.metrics.values():
        table.add_row(measured.title, measured_text(measured))
    table.add_row("Called PNEUMONIA, before and after", f"{aligned.called_before:.1%}, {aligned.called:.1%}")
    return table


def _judgement_rows(judgement: Judgement) -> list[list[str]]:
    judged = judgement.splits.values()
    rows = [["Metric", *(name.capitalize() for name in judgement.splits)]]
    for name, measured in judgement.test.metrics.items():
        rows.append([measured.title, *(measured_text(split.metrics[name]) for split in judged)])
    rows.append([_COUNTS, *(_counts_text(split.confusion) for split in judged)])
    halves = [split.at_one_half for split in judged if split.at_one_half is not None]
    if len(halves) == len(judged):
        for name in _RATES:
            rows.append([f"{name.capitalize()} at 0.5", *(measured_text(half.metrics[name]) for half in halves)])
        rows.append([f"{_COUNTS} at 0.5", *(_counts_text(half.confusion) for half in halves)])
    return rows if judgement.for_rule is None else _with_rule(rows, judgement)


def _with_rule(rows: list[list[str]], judgement: Judgement) -> list[list[str]]:
    """Returns rows with a column after that of test: the interval for the rule that chose the threshold."""
    for_rule = {measured.title: interval_text(measured.interval) for measured in judgement.for_rule.metrics.values()}
    header, *others = rows
    header = [header[0], "Test, this threshold", "this rule", *header[2:]]
    return [header, *([row[0], row[1], for_rule.get(row[0], ""), *row[2:]] for row in others)]


def _counts_text(confusion: Confusion) -> str:
    """Returns the four counts in the order of `_COUNTS`."""
    return " / ".join(f"{count:,}" for row in confusion for count in row)


def results_table(runs: Sequence[str | Path], published: Sequence[Published] = ()) -> str:
    """Returns the Markdown table of evaluated runs: one row a recipe, mean and standard deviation over its seeds.

    Runs whose configs differ in the seed alone are one recipe, named after their folders without `seed` and number, or
    with folders above where two would be called alike.
    The interval of ROC-AUC is that of the mean, for other patients and, where there are several seeds, other seeds;
    looks are those at test, by run.

    Args:
        runs: run folders with config.toml, evaluation.json, predictions/test.csv, and where they have them
            metrics.jsonl and ledger.jsonl.
        published: rows that come first.

    Raises:
        UserError: a folder is no run or not evaluated, or the runs of a recipe were judged on different images.
    """
    header = ["Recipe", "Runs", "Accuracy", "Sensitivity", "Specificity", "ROC-AUC (95 %)", "Looks", "Minutes"]
    rows = [header]
    for result in published:
        rates = [_share(getattr(result, name)) for name in _RATES]
        auc = "–" if result.roc_auc is None else f"{result.roc_auc:.3f}"
        rows.append([f"{result.name} (published)", "–", *rates, auc, "–", "–"])
    recipes = runs_by_recipe([RunFolder.open(path) for path in runs])
    for name, recipe in zip(recipe_names([same[0].path for same in recipes]), recipes, strict=True):
        rows.append(_recipe_row(name, recipe))
    return markdown_table(rows)


def runs_by_recipe(runs: Sequence[RunFolder]) -> list[list[RunFolder]]:
    """Returns the runs by recipe, recipes in the order of their first run; an ensemble is no seed of another."""
    by_config: dict[str, list[RunFolder]] = {}
    for run in runs:
        config = run.read_config()
        config.get("training", {}).pop("seed", None)
        ensemble = str(run.path) if is_ensemble(run) else ""
        by_config.setdefault(ensemble + json.dumps(config, sort_keys=True), []).append(run)
    return list(by_config.values())


def _recipe_row(name: str, runs: Sequence[RunFolder]) -> list[str]:
    judged = [read_judgement(run.evaluation).test.metrics for run in runs]
    rates = [spread_cell([metrics[name].value for metrics in judged], percent=True) for name in _RATES]
    tables = same_images(
        [read_predictions(run.predictions_of("test")) for run in runs], [str(run.path) for run in runs]
    )
    areas = [metrics["roc_auc"].value for metrics in judged]
    interval = None if None in areas else interval_over_seeds(areas, mean_auc_interval(tables))
    auc = f"{spread_cell(areas, percent=False)} {interval_text(interval)}".rstrip()
    return [name, str(len(runs)), *rates, auc, *looks_and_minutes(runs)]


def looks_and_minutes(runs: Sequence[RunFolder]) -> list[str]:
    """Returns the cells of looks at test, by run, and of the mean minutes of training."""
    looks = sorted({len(read_looks(run)) for run in runs})
    minutes = [wall_seconds(read_metrics(run.metrics)) / 60 for run in runs if run.metrics.is_file()]
    return [
        "–".join(str(count) for count in sorted({looks[0], looks[-1]})),
        f"{spread(minutes).mean:.1f}" if minutes else "–",
    ]


def spread_cell(values: Sequence[float | None], *, percent: bool) -> str:
    """Returns `spread_text` of the values of several seeds; a dash where one has none, as without images of a class."""
    return "–" if None in values else spread_text(spread(values), percent=percent)


def spread_text(values: Spread, *, percent: bool) -> str:
    """Returns mean and standard deviation over seeds as they stand in a cell."""
    told = with_deviation(values.mean, values.deviation, *((".1f", 100) if percent else (".3f", 1)))
    return f"{told} %" if percent else told


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows as a Markdown table, the first being its header; a bar in a cell does not end it."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]]) + "\n"


def write_block(path: Path, name: str, block: str, *, title: str) -> None:
    """Writes `block` between the marks of that name into a Markdown file, which begins with `title` where it is new.

    Raises:
        UserError: the file cannot be written.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {title}\n"
    write_text(path, with_block(text, name, block))


def with_block(text: str, name: str, block: str) -> str:
    """Returns `text` with `block` between the marks of that name, or after it where it has none; the rest stays.

    Raises:
        UserError: the marks are not one of each, the first before the other.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    marked = f"{begin}\n\n{block.strip()}\n\n{end}"
    if begin not in text and end not in text:
        return f"{text.rstrip()}\n\n{marked}\n".lstrip()
    if not (text.count(begin) == text.count(end) == 1 and text.index(begin) < text.index(end)):
        raise UserError(
            f"the Markdown file must have {begin} once, and after it {end} once, for what is written between them: "
            "mend the marks, or take them out"
        )
    return text.partition(begin)[0] + marked + text.partition(end)[2]
