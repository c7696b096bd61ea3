"""The judgement of K classes as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from cxr_jax.evaluation.class_judgement import ClassJudgement
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import measured_text
from cxr_jax.terminal import Terminal


def show_class_judgement(terminal: Terminal, judgement: ClassJudgement) -> None:
    """Prints the tables: all classes together, each against the rest, and the confusion matrix of test."""
    for table in (
        _together(judgement),
        _ranked(judgement),
        _called(judgement),
        _reached(judgement),
        _confusion(judgement),
    ):
        terminal.show(table)
    for warning in judgement.warnings:
        terminal.say(warning)


def _together(judgement: ClassJudgement) -> Table:
    """Returns every metric of all classes together, test beside validation."""
    level = f"{100 * judgement.confidence.level:g} %"
    table = _table(f"{judgement.test.images:,} test images of {len(judgement.classes)} classes, {level} intervals")
    table.add_column("Metric")
    for name in judgement.splits:
        table.add_column(name.capitalize(), justify="right", no_wrap=True)
    for name, measured in judgement.test.metrics.items():
        table.add_row(measured.title, *(measured_text(split.metrics[name]) for split in judgement.splits.values()))
    return table


def _ranked(judgement: ClassJudgement) -> Table:
    """Returns how well the probability of each class ranks the test images."""
    rows = {name: [f"{judged.images:,}", *_texts(judged.metrics)] for name, judged in judgement.test.classes.items()}
    return _by_class("Each class against the rest, test", ("Images", "ROC-AUC", "PR-AUC"), rows)


def _called(judgement: ClassJudgement) -> Table:
    """Returns what the calls of each class are worth on test."""
    rows = {name: _texts(judged.called) for name, judged in judgement.test.classes.items()}
    title = "Each class as it is called, test: the one of the highest probability"
    return _by_class(title, ("Sensitivity", "Specificity", "Precision", "F1"), rows)


def _reached(judgement: ClassJudgement) -> Table:
    """Returns what the threshold of each class gives on test."""
    points = judgement.points.classes
    rows = {
        name: [f"{points[name].threshold:.4g}", *_texts(judged.at_threshold)]
        for name, judged in judgement.test.classes.items()
    }
    title = "Each class from its own threshold on, test"
    return _by_class(title, ("Threshold", "Sensitivity", "Specificity", "Precision"), rows)


def _texts(measures: dict[str, Measured]) -> list[str]:
    return [measured_text(measured) for measured in measures.values()]


def _by_class(title: str, columns: tuple[str, ...], rows: dict[str, list[str]]) -> Table:
    """Returns a table with a row for each class."""
    table = _table(title)
    table.add_column("Class")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, texts in rows.items():
        table.add_row(name, *texts)
    return table


def _confusion(judgement: ClassJudgement) -> Table:
    """Returns the confusion matrix of test."""
    table = _table("Confusion matrix of test: rows are the true class, columns the called class")
    table.add_column("")
    for name in judgement.classes:
        table.add_column(name, justify="right")
    for name, row in zip(judgement.classes, judgement.test.confusion, strict=True):
        table.add_row(name, *(f"{count:,}" for count in row))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left")
