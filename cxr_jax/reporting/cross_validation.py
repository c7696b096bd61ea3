"""What cross-validation reached, as a table in the terminal and in Markdown."""

from __future__ import annotations

from rich.table import Table

from cxr_jax.evaluation.cross_validation import JUDGED, CrossValidation, HeldOut
from cxr_jax.evaluation.numbers import interval_text, measured_text, with_deviation
from cxr_jax.evaluation.seeds import spread
from cxr_jax.reporting.tables import markdown_table
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, PNEUMONIA

_HEADERS = ("ROC-AUC", "Accuracy", "Balanced accuracy", "Sensitivity", "Specificity")


def terminal_table(found: CrossValidation) -> Table:
    """Returns the figures of every fold and of all folds as a table for the terminal."""
    header, *rows = _rows(found)
    table = Table(title=_title(found), title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table


def cross_validation_markdown(found: CrossValidation, config: str) -> str:
    """Returns the same as Markdown, with what a reader must know; `config` is the name of what was trained."""
    title = f"# Cross-validation of {config}\n\n{_title(found)}."
    return "\n\n".join([title, markdown_table(_rows(found)).rstrip(), *notes(found), DISCLAIMER]) + "\n"


def notes(found: CrossValidation) -> list[str]:
    """Returns sentences that belong beside the table."""
    point, pooled = found.operating_point, found.pooled
    told = [
        "Every image is judged by the one network that did not see it, as that network was at the end of its training; "
        "nothing was chosen on these images but the threshold."
    ]
    if point.rule == "fixed":
        told.append(f"The threshold {point.threshold:.4g} was fixed beforehand.")
    else:
        target = (point.parameters or {}).get("target_sensitivity")
        aim = "" if target is None else f" ({target:.1%})"
        told.append(
            f"The threshold {point.threshold:.4g} was chosen by the rule {point.rule}{aim} on these very predictions, "
            f"{pooled.classes[CLASS_NAMES[PNEUMONIA]]:,} of them of {CLASS_NAMES[PNEUMONIA]}: accuracy, sensitivity "
            "and specificity above are what it was chosen to give, and flatter a little."
        )
    told.append(
        f"ROC-AUC within folds, averaged: {measured_text(found.mean_roc_auc, '.4f')}; there images of one network are "
        f"ranked. Pooled over all folds: {measured_text(pooled.metrics['roc_auc'], '.4f')}; there images of different "
        "networks are ranked against each other, as by the one threshold that all share."
    )
    return told


def _title(found: CrossValidation) -> str:
    pooled = found.pooled
    groups = "" if pooled.groups is None else f" of {pooled.groups:,} groups"
    level = f"{100 * found.confidence.level:g} %"
    return (
        f"{pooled.images:,} images{groups}, each held out once in {len(found.folds)} folds, threshold "
        f"{found.operating_point.threshold:.4g}, {level} intervals"
    )


def _rows(found: CrossValidation) -> list[list[str]]:
    rows = [["Held out", "Images", *_HEADERS]]
    rows += [_row(f"fold {number}", held_out) for number, held_out in enumerate(found.folds)]
    means = [_mean_text(found, name) for name in JUDGED]
    means[0] = f"{means[0]} {interval_text(found.mean_roc_auc.interval)}".rstrip()
    rows.append(["mean ± deviation of folds", "", *means])
    rows.append(_row("all, pooled", found.pooled))
    return rows


def _row(name: str, held_out: HeldOut) -> list[str]:
    return [name, f"{held_out.images:,}", *(measured_text(held_out.metrics[metric]) for metric in JUDGED)]


def _mean_text(found: CrossValidation, name: str) -> str:
    values = [fold.metrics[name].value for fold in found.folds]
    if None in values:
        return "undefined"
    over = spread(values)
    return with_deviation(over.mean, over.deviation)
