"""Runs of classes other than NORMAL and PNEUMONIA, or of findings, side by side in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cxr_jax.evaluation.class_judgement import ClassJudgement, JudgedClass, read_class_judgement
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import measured_text
from cxr_jax.reporting.tables import looks_and_minutes, markdown_table, runs_by_recipe, spread_cell
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.recipes import recipe_names

_OF_CLASSES = {"accuracy": True, "balanced_accuracy": True, "macro_roc_auc": False}
"""Metrics of all classes together, and whether they are written as percentages."""

_OF_FINDINGS = {"macro_roc_auc": False, "macro_average_precision": False, "macro_f1": False}


def class_results(runs: Sequence[RunFolder]) -> str:
    """Returns Markdown tables of evaluated runs that tell other classes than NORMAL and PNEUMONIA.

    Runs of the same classes share two tables: one of all classes together with a row a recipe, and one with a row for
    each class of each recipe. Several seeds have mean and standard deviation, a single run its 95 % interval. Runs of
    other classes have tables of their own.

    Raises:
        UserError: a run was not evaluated, or a record of it is damaged.
    """
    judged = {run: read_class_judgement(run.evaluation) for run in runs}
    alike: dict[tuple[bool, tuple[str, ...]], list[RunFolder]] = {}
    for run, judgement in judged.items():
        alike.setdefault((judgement.of_findings, judgement.classes), []).append(run)
    return "\n".join(_tables(same, judged) for same in alike.values())


def _tables(runs: Sequence[RunFolder], judged: dict[RunFolder, ClassJudgement]) -> str:
    """Returns the two tables of runs of the same classes."""
    first = judged[runs[0]]
    told = _OF_FINDINGS if first.of_findings else _OF_CLASSES
    titles = [first.test.metrics[name].title for name in told]
    together = [["Recipe", "Runs", *titles, "Looks", "Minutes"]]
    what = "Finding" if first.of_findings else "Class"
    each = [["Recipe", what, "Test images", "ROC-AUC", "PR-AUC", "Sensitivity", "Specificity"]]
    recipes = runs_by_recipe(runs)
    for name, same in zip(recipe_names([same[0].path for same in recipes]), recipes, strict=True):
        judgements = [judged[run] for run in same]
        metrics = [judgement.test.metrics for judgement in judgements]
        cells = [_cell((entry[metric] for entry in metrics), percent=percent) for metric, percent in told.items()]
        together.append([name, str(len(same)), *cells, *looks_and_minutes(same)])
        for label in first.classes:
            classes = [entry.test.classes[label] for entry in judgements if label in entry.test.classes]
            if classes:
                each.append([name, label, *_cells_of(classes)])
    return f"{markdown_table(together)}\n{markdown_table(each)}"


def _cells_of(classes: Sequence[JudgedClass]) -> list[str]:
    """Returns what is told of one class: how many images show it, its areas, and its rates where it is called."""
    # exclusive classes are called where they are the likeliest, findings from their thresholds on
    called = [entry.called or entry.at_threshold for entry in classes]
    areas = [
        _cell((entry.metrics[name] for entry in classes), percent=False) for name in ("roc_auc", "average_precision")
    ]
    rates = [_cell((entry[name] for entry in called), percent=True) for name in ("sensitivity", "specificity")]
    return [f"{classes[0].images:,}", *areas, *rates]


def _cell(measured: Iterable[Measured], *, percent: bool) -> str:
    """Returns one run's value with its interval, or mean and deviation over several."""
    found = list(measured)
    values = [entry.value for entry in found]
    if len(found) == 1 and values[0] is not None:
        return measured_text(found[0], ".1%" if percent else ".3f")
    return spread_cell(values, percent=percent)
