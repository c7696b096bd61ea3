"""What cross-validation of classes other than NORMAL and PNEUMONIA reached, in the terminal and in Markdown."""

from __future__ import annotations

from rich.table import Table

from cxr_jax.evaluation.class_cross_validation import ClassCrossValidation
from cxr_jax.evaluation.numbers import measured_text, with_deviation
from cxr_jax.evaluation.seeds import spread
from cxr_jax.reporting.tables import markdown_table
from cxr_jax.vocabulary import DISCLAIMER, FINDINGS


def class_tables(found: ClassCrossValidation) -> list[Table]:
    """Returns the figures of every fold and of all folds, and those of every class, as tables for the terminal."""
    tables = []
    for title, rows in ((_title(found), _rows(found)), (f"Each {_what(found)}, all folds together", _each(found))):
        table = Table(title=title, title_justify="left")
        for index, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if index else "left")
        for row in rows[1:]:
            table.add_row(*row)
        tables.append(table)
    return tables


def class_markdown(found: ClassCrossValidation, config: str) -> str:
    """Returns the same as Markdown, with what a reader must know; `config` is the name of what was trained."""
    tables = [markdown_table(rows).rstrip() for rows in (_rows(found), _each(found))]
    title = f"# Cross-validation of {config}\n\n{_title(found)}."
    return "\n\n".join([title, *tables, *class_notes(found), DISCLAIMER]) + "\n"


def class_notes(found: ClassCrossValidation) -> list[str]:
    """Returns sentences that belong beside the tables."""
    told = [
        "Every image is judged by the one network that did not see it, as that network was at the end of its training; "
        "nothing was chosen on these images but the thresholds."
    ]
    chosen = sorted({point.rule for point in found.points.classes.values() if point.rule != "fixed"})
    if chosen:
        told.append(
            f"The threshold of each {_what(found)} was chosen by the rule {' or '.join(chosen)} on these very "
            "predictions: sensitivity, specificity and F1 are what it was chosen to give, and flatter a little."
        )
    else:
        told.append("The thresholds were fixed beforehand.")
    told.append(
        "The figures of folds rank images of one network. Pooled, images of different networks are ranked against each "
        "other, as by thresholds that all share."
    )
    return told


def _what(found: ClassCrossValidation) -> str:
    return "finding" if found.kind_of_classes == FINDINGS else "class"


def _title(found: ClassCrossValidation) -> str:
    pooled = found.pooled
    groups = "" if pooled.groups is None else f" of {pooled.groups:,} groups"
    level = f"{100 * found.confidence.level:g} %"
    return f"{pooled.images:,} images{groups}, each held out once in {len(found.folds)} folds, {level} intervals"


def _rows(found: ClassCrossValidation) -> list[list[str]]:
    rows = [["Held out", "Images", *(found.pooled.metrics[name].title for name in found.told)]]
    for number, fold in enumerate(found.folds):
        rows.append([f"fold {number}", f"{fold.images:,}", *(measured_text(fold.metrics[name]) for name in found.told)])
    rows.append(["mean ± deviation of folds", "", *(_mean_text(found, name) for name in found.told)])
    pooled = (measured_text(found.pooled.metrics[name]) for name in found.told)
    rows.append(["all, pooled", f"{found.pooled.images:,}", *pooled])
    return rows


def _mean_text(found: ClassCrossValidation, name: str) -> str:
    values = [fold.metrics[name].value for fold in found.folds]
    if None in values:
        return "undefined"
    over = spread(values)
    return with_deviation(over.mean, over.deviation)


def _each(found: ClassCrossValidation) -> list[list[str]]:
    """Returns a row for every class: its images, its areas, its threshold, and its rates from that on."""
    of_findings = found.kind_of_classes == FINDINGS
    header = [_what(found).capitalize(), "Shown by" if of_findings else "Images", "Unknown", "ROC-AUC", "PR-AUC"]
    rows = [[*header, "Threshold", "Sensitivity", "Specificity"]]
    for name, judged in found.pooled.classes.items():
        areas = (measured_text(judged.metrics[metric]) for metric in ("roc_auc", "average_precision"))
        rates = (measured_text(judged.at_threshold[metric]) for metric in ("sensitivity", "specificity"))
        threshold = f"{found.points.classes[name].threshold:.4g}"
        rows.append([name, f"{judged.images:,}", f"{judged.unknown:,}", *areas, threshold, *rates])
    return rows
