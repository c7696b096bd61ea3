"""The judgement of K classes, or of findings, as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from cxr_jax.evaluation.class_judgement import ClassJudgement
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import measured_text
from cxr_jax.terminal import Terminal


def show_class_judgement(terminal: Terminal, judgement: ClassJudgement) -> None:
    """Prints the tables: all classes together, each against the rest, and the confusion matrix of test.

    Of findings there is no such matrix.
    """
    tables = [_together(judgement), _ranked(judgement)]
    if judgement.of_findings:
        tables += [_reached(judgement), _calibrated(judgement)]
    else:
        tables += [_called(judgement), _reached(judgement), _confusion(judgement)]
    for table in tables:
        terminal.show(table)
    for warning in judgement.warnings:
        terminal.say(warning)


def _together(judgement: ClassJudgement) -> Table:
    """Returns every metric of all classes together, test beside validation."""
    level = f"{100 * judgement.confidence.level:g} %"
    what = f"and {len(judgement.classes)} findings" if judgement.of_findings else f"of {len(judgement.classes)} classes"
    table = _table(f"{judgement.test.images:,} test images {what}, {level} intervals")
    table.add_column("Metric")
    for name in judgement.splits:
        table.add_column(name.capitalize(), justify="right", no_wrap=True)
    for name, measured in judgement.test.metrics.items():
        table.add_row(measured.title, *(measured_text(split.metrics[name]) for split in judgement.splits.values()))
    return table


def _ranked(judgement: ClassJudgement) -> Table:
    """Returns how well the probability of each class ranks the test images."""
    rows = {name: [f"{judged.images:,}", *_texts(judged.metrics)] for name, judged in judgement.test.classes.items()}
    if not judgement.of_findings:
        return _by_class("Each class against the rest, test", ("Images", "ROC-AUC", "PR-AUC"), rows)
    for name, judged in judgement.test.classes.items():
        rows[name].insert(1, f"{judged.unknown:,}")
    title = "Each finding where it is known, test"
    return _by_class(title, ("Shown", "Unknown", "ROC-AUC", "PR-AUC"), rows, "Finding")


def _calibrated(judgement: ClassJudgement) -> Table:
    """Returns whether the probabilities of each finding are what they say, as predicted, and its temperature."""
    rows = {}
    for name, judged in judgement.test.classes.items():
        before, temperature = judged.calibration.before, judged.calibration.temperature
        told = "none" if temperature is None else f"{temperature:.3g}"
        rows[name] = [*_texts({"brier": before.brier, "error": before.error("mass", 10)}), told]
    columns = ("Brier score", "Calibration error", "Temperature of validation")
    return _by_class("Calibration of each finding as predicted, test", columns, rows, "Finding")


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
    columns = ("Threshold", "Sensitivity", "Specificity", "Precision")
    if judgement.of_findings:
        return _by_class("Each finding from its threshold on, test", (*columns, "F1"), rows, "Finding")
    return _by_class("Each class from its own threshold on, test", columns, rows)


def _texts(measures: dict[str, Measured]) -> list[str]:
    return [measured_text(measured) for measured in measures.values()]


def _by_class(title: str, columns: tuple[str, ...], rows: dict[str, list[str]], first: str = "Class") -> Table:
    """Returns a table with a row for each class, whose names stand below `first`."""
    table = _table(title)
    table.add_column(first)
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
