"""The judgement of K classes as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from cxr_jax.evaluation.class_judgement import ClassJudgement
from cxr_jax.evaluation.judge_classes import AT_THRESHOLD
from cxr_jax.evaluation.numbers import measured_text
from cxr_jax.terminal import Terminal


def show_class_judgement(terminal: Terminal, judgement: ClassJudgement) -> None:
    """Prints the tables: all classes together, each against the rest, and the confusion matrix of test."""
    for table in (_together(judgement), _each(judgement), _confusion(judgement)):
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


def _each(judgement: ClassJudgement) -> Table:
    """Returns what is told of each class against the rest on test."""
    table = _table("Each class against the rest, test; called: the class of the highest probability")
    table.add_column("Class")
    columns = ("Images", "ROC-AUC", "PR-AUC", "Called: sensitivity", "Called: specificity", "Called: precision")
    for title in (*columns, "Threshold", *(f"There: {name}" for name in AT_THRESHOLD[:2])):
        table.add_column(title, justify="right")
    for name, judged in judgement.test.classes.items():
        measured = (
            *judged.metrics.values(),
            *(judged.called[metric] for metric in AT_THRESHOLD),
            *(judged.at_threshold[metric] for metric in AT_THRESHOLD[:2]),
        )
        texts = [measured_text(entry) for entry in measured]
        threshold = f"{judgement.points.classes[name].threshold:.4g}"
        table.add_row(name, f"{judged.images:,}", *texts[:5], threshold, *texts[5:])
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
