"""What a comparison of recipes of K classes, or of findings, says, as the rows of tables with their notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_jax.evaluation.comparison_record import ClassComparison, Comparison
from cxr_jax.reporting import comparison_table
from cxr_jax.reporting.comparison_cells import (
    NOTHING,
    is_rate,
    pair_cell,
    ruled_cell,
    ruled_pair_cell,
    threshold_text,
    value_cell,
)
from cxr_jax.reporting.comparison_table import (
    RULE_NOTE,
    Section,
    interval_note,
    looks_cell,
    pair_notes,
    sections_of_runs,
    threshold_note,
)
from cxr_jax.reporting.recipe_records import RecipeRecord
from cxr_jax.vocabulary import FINDINGS

_TITLES = {
    "macro_roc_auc": "ROC-AUC, macro",
    "macro_average_precision": "PR-AUC, macro",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "F1, macro",
    "macro_sensitivity": "Sensitivity, macro",
    "macro_specificity": "Specificity, macro",
    "log_loss": "Log-loss",
    "roc_auc": "ROC-AUC",
    "average_precision": "PR-AUC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
}
_EXCLUSIVE = ("macro_roc_auc", "macro_average_precision", "accuracy", "balanced_accuracy", "macro_f1", "log_loss")
_FINDINGS = ("macro_roc_auc", "macro_average_precision", "log_loss")
_FINDINGS_CALLED = ("macro_sensitivity", "macro_specificity", "macro_f1")
"""Metrics of all classes, or all findings, together that the tables show; comparison.json has more."""

_CALLED = ("accuracy", "sensitivity", "specificity")
"""Metrics of one class that change with its threshold."""

_TESTS = {"accuracy": "accuracy", "all others": "macro_roc_auc"}
_TESTS_OF_FINDINGS = {"all": "macro_roc_auc"}


def introduction(comparison: ClassComparison) -> str:
    """Returns what a comparison is on, and how its values are to be read."""
    counts = [f"{part.pneumonia:,} {name}" for name, part in comparison.classes.items()]
    text = comparison_table.introduction(comparison.together, ", ".join(counts))
    if not comparison.left_out:
        return text
    return (
        f"{text} Left out, as every image shows them, or none, or nobody knows: {', '.join(comparison.left_out)}. "
        "Means over findings are without them; means over exclusive classes have no value."
    )


def sections(comparison: ClassComparison, records: Sequence[RecipeRecord]) -> list[Section]:
    """Returns every table of a comparison: all classes together, each class, costs, and pairs.

    Args:
        comparison: what `compare_classes` gave for the recipes of these records.
        records: in the order of the comparison.
    """
    of_findings = comparison.kind_of_classes == FINDINGS
    ruled = any(part.has("operating_point") for part in comparison.classes.values())
    each = "Each finding" if of_findings else "Each class against the rest"
    called = "at threshold 0.5" if of_findings else "where the highest probability is called"
    plain = _keys(of_findings=of_findings)
    tables = [
        _together(comparison, records, _together_keys(comparison)),
        Section(f"{each}, {called}", _class_rows(comparison, plain)),
    ]
    if ruled:
        rows = _threshold_rows(comparison)
        tables.append(Section(f"{each}, from its own threshold on", rows, (threshold_note(records),)))
    tables += sections_of_runs(records)
    if comparison.together.pairs:
        tables += [
            _pairs_together(comparison, _together_keys(comparison)),
            Section(f"Differences, {each.lower()}, {called}", _pair_rows(comparison, plain), _notes(comparison)),
        ]
        if ruled:
            title = f"Differences, {each.lower()}, from its own threshold on"
            tables.append(Section(title, _ruled_pair_rows(comparison), (*_notes(comparison), RULE_NOTE)))
    return tables


def _keys(*, of_findings: bool) -> dict[str, str]:
    """Returns the metrics of one class by their key, those of calls where the class has no threshold of its own."""
    free = {name: name for name in ("roc_auc", "average_precision")}
    if of_findings:
        return free | {f"{name}@half": name for name in _CALLED}
    return free | {f"{name}@call": name for name in ("sensitivity", "specificity", "precision")}


def _together_keys(comparison: ClassComparison) -> dict[str, str]:
    """Returns the metrics of all classes together by their key."""
    if comparison.kind_of_classes != FINDINGS:
        return {name: name for name in _EXCLUSIVE}
    at = "operating_point" if comparison.together.has("operating_point") else "half"
    return {name: name for name in _FINDINGS} | {f"{name}@{at}": name for name in _FINDINGS_CALLED}


def _header(keys: Mapping[str, str], unit: str) -> list[str]:
    return [f"{_TITLES[name]}, {unit}" if is_rate(name) else _TITLES[name] for name in keys.values()]


def _together(comparison: ClassComparison, records: Sequence[RecipeRecord], keys: Mapping[str, str]) -> Section:
    rows = [["Recipe", "Seeds", *_header(keys, "%"), "Looks at test"]]
    for record in records:
        summary = comparison.together.recipes[record.recipe.name]
        cells = [value_cell(summary.endpoints[key], name) for key, name in keys.items()]
        rows.append([record.recipe.name, str(summary.seeds), *cells, looks_cell(record)])
    of_findings = comparison.kind_of_classes == FINDINGS
    notes = (interval_note(comparison.together),)
    if of_findings:
        where = "its own threshold" if comparison.together.has("operating_point") else "threshold 0.5"
        notes = (f"A finding is called from {where} on.", *notes)
    return Section("All findings together" if of_findings else "All classes together", rows, notes)


def _class_rows(comparison: ClassComparison, keys: Mapping[str, str]) -> list[list[str]]:
    rows = [["Class", *_header(keys, "%")]]
    for of_class, part in comparison.classes.items():
        for name, summary in part.recipes.items():
            cells = [value_cell(summary.endpoints[key], metric) for key, metric in keys.items()]
            rows.append([f"{of_class}\n{name}", *cells])
    return rows


def _threshold_rows(comparison: ClassComparison) -> list[list[str]]:
    rows = [["Class", "Threshold", *(f"{_TITLES[name]}, %" for name in _CALLED)]]
    for of_class, part in comparison.classes.items():
        for name, summary in part.recipes.items():
            ends = summary.endpoints
            told = NOTHING if summary.thresholds is None else "\n".join(map(threshold_text, summary.thresholds))
            cells = [ruled_cell(ends[f"{m}@operating_point"], ends.get(f"{m}@rule"), m) for m in _CALLED]
            rows.append([f"{of_class}\n{name}", told, *cells])
    return rows


def _pairs_together(comparison: ClassComparison, keys: Mapping[str, str]) -> Section:
    rows = [["First − second", *_header(keys, "points")]]
    for pair in comparison.together.pairs:
        cells = [pair_cell(pair.endpoints[key], name) for key, name in keys.items()]
        rows.append([f"{pair.first}\n− {pair.second}", *cells])
    of_findings = comparison.kind_of_classes == FINDINGS
    notes = pair_notes(comparison.together, _TESTS_OF_FINDINGS if of_findings else _TESTS)
    return Section(f"Differences, all {'findings' if of_findings else 'classes'} together", rows, notes)


def _pair_rows(comparison: ClassComparison, keys: Mapping[str, str]) -> list[list[str]]:
    rows = [["Class, first − second", *_header(keys, "points")]]
    for of_class, part in comparison.classes.items():
        for pair in part.pairs:
            cells = [pair_cell(pair.endpoints[key], name) for key, name in keys.items()]
            rows.append([f"{of_class}\n{pair.first}\n− {pair.second}", *cells])
    return rows


def _ruled_pair_rows(comparison: ClassComparison) -> list[list[str]]:
    rows = [["Class, first − second", *(f"{_TITLES[name]}, points" for name in _CALLED)]]
    for of_class, part in comparison.classes.items():
        for pair in part.pairs:
            cells = [ruled_pair_cell(pair, name) for name in _CALLED]
            rows.append([f"{of_class}\n{pair.first}\n− {pair.second}", *cells])
    return rows


def _notes(comparison: ClassComparison) -> tuple[str, ...]:
    """Returns for how many comparisons p-values of one class are corrected."""
    first: Comparison = next(iter(comparison.classes.values()))
    count = first.correction.comparisons
    if count == 1:
        return ()
    return (
        f"P-values of a column are corrected for {count} comparisons, all pairs of all classes, by Holm (1979). "
        "Accuracy is tested by McNemar's test, ROC-AUC as Obuchowski or DeLong, all else by a bootstrap.",
    )
