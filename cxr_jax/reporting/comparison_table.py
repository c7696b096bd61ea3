"""What a comparison of recipes of NORMAL and PNEUMONIA says, as the rows of tables with their notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxr_jax.evaluation.comparison_record import Comparison
from cxr_jax.reporting.comparison_cells import (
    NOTHING,
    is_rate,
    metric_text,
    pair_cell,
    ruled_cell,
    ruled_pair_cell,
    threshold_text,
    value_cell,
)
from cxr_jax.reporting.comparison_quality import check_notes, check_rows, quality_notes, quality_rows
from cxr_jax.reporting.published import PUBLISHED, Published
from cxr_jax.reporting.recipe_records import Costs, RecipeRecord
from cxr_jax.runs.trained_on import OFFICIAL_TEST

_SHORT = {
    "roc_auc": "ROC-AUC",
    "average_precision": "PR-AUC",
    "brier": "Brier",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "matthews_correlation": "MCC",
}
_PROBABILITIES = ("roc_auc", "average_precision", "brier")
_CALLS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "matthews_correlation")
_TESTED = ("accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Section:
    """A table with its title and what must be said of it; rows begin with the header, a cell may have several lines."""

    title: str
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def published_beside(comparison: Comparison) -> tuple[Published, ...]:
    """Returns the published results that may stand beside a comparison: none unless it is on the official test
    split.
    """
    official = comparison.images == sum(OFFICIAL_TEST.values())
    return PUBLISHED if official and comparison.pneumonia == OFFICIAL_TEST["PNEUMONIA"] else ()


def sections(comparison: Comparison, records: Sequence[RecipeRecord]) -> list[Section]:
    """Returns every table of a comparison: metrics, costs and pairs.

    Args:
        comparison: what `evaluation.comparison.compare` gave for the recipes of these records.
        records: in the order of the comparison.
    """
    published = published_beside(comparison)
    operating = comparison.has("operating_point")
    tables = [_probabilities(comparison, records, published), _calls(comparison, records, published)]
    if operating:
        tables.append(_operating_point(comparison, records))
    tables += sections_of_runs(records)
    if comparison.pairs:
        tables.append(_pairs(comparison, "half"))
        if operating:
            tables.append(_pairs(comparison, "operating_point"))
    return tables


def sections_of_runs(records: Sequence[RecipeRecord]) -> list[Section]:
    """Returns the tables of what the runs say beside their predictions: costs, audits and checks."""
    tables = []
    if any(record.costs != Costs() for record in records):
        tables.append(_costs(records))
    if any(record.audits for record in records):
        tables.append(Section("Errors and image quality", quality_rows(records), quality_notes(records)))
    if any(record.checks for record in records):
        tables.append(Section("Checks of heat maps", check_rows(records), check_notes(records)))
    return tables


def introduction(comparison: Comparison, shown: str = "") -> str:
    """Returns what a comparison is on, and how its values are to be read; `shown` says what the images show."""
    groups = comparison.groups
    return (
        f"{comparison.images:,} images, {shown or f'{comparison.pneumonia:,} of them PNEUMONIA'}"
        + (f", in {groups:,} groups (stand-ins for patients)." if groups else ", without groups.")
        + " Values are means over seeds ± their standard deviation; in brackets the "
        + f"{100 * comparison.confidence.level:g} % interval of the mean: for other patients and, where a recipe has "
        + "several seeds, for other seeds as well."
    )


def _probabilities(comparison: Comparison, records: Sequence[RecipeRecord], published: Sequence[Published]) -> Section:
    rows = [["Recipe", "Seeds", *(_SHORT[name] for name in _PROBABILITIES), "Looks at test"]]
    for result in published:
        if result.roc_auc is not None:
            rows.append([_published_name(result), "1", f"{result.roc_auc:.3f}", NOTHING, NOTHING, NOTHING])
    for record in records:
        summary = comparison.recipes[record.recipe.name]
        cells = [value_cell(summary.endpoints[name], name) for name in _PROBABILITIES]
        rows.append([record.recipe.name, str(summary.seeds), *cells, looks_cell(record)])
    return Section("Probabilities", rows, (interval_note(comparison),))


def interval_note(comparison: Comparison) -> str:
    """Returns how the intervals beside the means were computed."""
    method = "Obuchowski 1997" if comparison.groups else "DeLong 1988"
    bootstrap = "groups" if comparison.groups else "images"
    return (
        f"Intervals for other patients: ROC-AUC by {method} on the logit; shares of images by Wilson 1927 with the "
        f"number of images that their {bootstrap} are worth; all others by a bootstrap of {bootstrap} "
        f"({comparison.confidence.resamples:,} resamples or more). Of several seeds, Student's interval of their mean "
        "is added in squares (Zou & Donner 2008). "
        "Looks: evaluations on test in the ledger of each run, by seed."
    )


def _calls(comparison: Comparison, records: Sequence[RecipeRecord], published: Sequence[Published]) -> Section:
    rows = [["Recipe", *(_titled(name) for name in _CALLS)]]
    for result in published:
        stated = {name: getattr(result, name, None) for name in _CALLS}
        rows.append(
            [_published_name(result), *(NOTHING if v is None else metric_text(v, name) for name, v in stated.items())]
        )
    rows += [[record.recipe.name, *_call_cells(comparison, record, "half")] for record in records]
    return Section("Calls at threshold 0.5", rows)


def _operating_point(comparison: Comparison, records: Sequence[RecipeRecord]) -> Section:
    rows = [["Recipe", "Threshold", *(_titled(name) for name in _CALLS)]]
    for record in records:
        thresholds = record.recipe.thresholds
        told = NOTHING if thresholds is None else "\n".join(threshold_text(value) for value in thresholds)
        rows.append([record.recipe.name, told, *_call_cells(comparison, record, "operating_point")])
    return Section("Calls at the operating point", rows, (threshold_note(records),))


def threshold_note(records: Sequence[RecipeRecord]) -> str:
    """Returns how the thresholds were chosen, and how their intervals are to be read."""
    rules = {record.recipe.name: record.rule for record in records if record.rule}
    same = len(set(rules.values())) == 1
    told = next(iter(rules.values())) if same else "; ".join(f"{name}: {rule}" for name, rule in rules.items())
    if any(record.chosen_anew for record in records):
        how = "chosen for this comparison on the validation predictions of each run"
    else:
        how = "that each run fixed before it was evaluated on test"
    return (
        f"Thresholds by seed, {how} ({told}). Such a threshold is an estimate. “Rule” is the interval for a recipe "
        "with its rule: validation and test groups are drawn anew together, and the threshold is set anew in every "
        "draw. “Threshold” takes the thresholds as given. What is claimed of a recipe needs the first."
    )


def _titled(metric: str) -> str:
    return f"{_SHORT[metric]}, %" if is_rate(metric) else _SHORT[metric]


def _call_cells(comparison: Comparison, record: RecipeRecord, at: str) -> list[str]:
    endpoints = comparison.recipes[record.recipe.name].endpoints
    if at == "half":
        return [value_cell(endpoints[f"{name}@half"], name) for name in _CALLS]
    return [ruled_cell(endpoints[f"{name}@{at}"], endpoints.get(f"{name}@rule"), name) for name in _CALLS]


def _costs(records: Sequence[RecipeRecord]) -> Section:
    rows = [["Recipe", "Parameters", "Multiply-adds", "Images/s", "Minutes"]]
    for record in records:
        costs = record.costs
        rows.append(
            [
                record.recipe.name,
                NOTHING if costs.parameters is None else f"{costs.parameters / 1e6:.2f} M",
                NOTHING if costs.multiply_adds is None else f"{costs.multiply_adds / 1e9:.2f} G",
                NOTHING if costs.images_per_second is None else f"{costs.images_per_second:.1f}",
                NOTHING if costs.minutes is None else f"{costs.minutes:.1f}",
            ]
        )
    machines = list(dict.fromkeys(record.costs.machine for record in records if record.costs.machine))
    note = (
        "Multiply-adds of one forward pass; images/s of training, the median over iterations of the slowest phase; "
        "minutes of training with its validations; means over seeds."
    )
    if len(machines) == 1:
        note += f" Machine: {machines[0]}."
    elif machines:
        told = [f"{record.recipe.name}: {record.costs.machine}" for record in records if record.costs.machine]
        note += f" Machines differ, so speeds do not compare ({'; '.join(told)})."
    return Section("Costs", rows, (note,))


def _pairs(comparison: Comparison, at: str) -> Section:
    keys = {**({"roc_auc": "roc_auc"} if at == "half" else {}), **{f"{name}@{at}": name for name in _TESTED}}
    units = {name: f"{_SHORT[name]}, points" if is_rate(name) else _SHORT[name] for name in keys.values()}
    rows = [["First − second", *units.values()]]
    for pair in comparison.pairs:
        if at == "half":
            cells = [pair_cell(pair.endpoints[key], name) for key, name in keys.items()]
        else:
            cells = [ruled_pair_cell(pair, name) for name in keys.values()]
        rows.append([f"{pair.first}\n− {pair.second}", *cells])
    where = "threshold 0.5" if at == "half" else "the operating point"
    return Section(f"Differences at {where}", rows, pair_notes(comparison) if at == "half" else (RULE_NOTE,))


_TESTS = {"ROC-AUC": "roc_auc", "accuracy": "accuracy", "sensitivity and specificity": "specificity"}


def pair_notes(comparison: Comparison, tested: Mapping[str, str] = _TESTS) -> tuple[str, ...]:
    """Returns how differences, intervals and p-values are to be read; `tested` names a metric of every kind of test."""
    answers = [a for pair in comparison.pairs for a in pair.endpoints.values() if a is not None]
    tests = "; ".join(f"{title}: {_tests(comparison, name)}" for title, name in tested.items())
    level = f"{100 * comparison.confidence.level:g} %"
    count = comparison.correction.comparisons
    corrected = "p-values are two-sided"
    if count > 1:
        # Those over seeds are corrected by themselves, and need several seeds of both recipes.
        again = sum(any(a and a.over_seeds for a in pair.endpoints.values()) for pair in comparison.pairs)
        counted = f"{count} comparisons a column" + (f" ({again} retrained)" if 0 < again < count else "")
        corrected += f" and corrected for {counted} by Holm (1979); columns are not corrected for each other"
    notes = [
        f"Differences are of means over seeds, never of an ensemble, with their {level} intervals; {corrected}.",
        f"As trained: these very networks, other patients ({tests}). A p-value after < is the smallest that so "
        "many draws can show.",
    ]
    if count > 1:
        notes.append(
            "Intervals hold for one comparison at a time. They are not simultaneous: some may leave 0 out where the "
            "corrected p-value is large."
        )
    if any(answer.over_seeds for answer in answers):
        notes.append(
            "Retrained: other patients and other seeds (Obuchowski & Rockette 1995, the seeds as readers nested in "
            "their recipe). The interval is this one where it is known, and it is what a claim about a recipe needs."
        )
    if not all(answer.over_seeds for answer in answers):
        notes.append(
            "Where a recipe has one seed, or nothing varies, only “as trained” can be said: another seed may turn the "
            "difference round."
        )
    return tuple(notes)


RULE_NOTE = (
    "First the answers for the rule, which set every threshold anew on other validation images. A claim about a recipe "
    "needs them. Below stand the answers for these thresholds, taken as given. A recipe without predictions on "
    "validation has no answer for its rule."
)


def _tests(comparison: Comparison, metric: str) -> str:
    """Returns the names of the tests that a metric was given."""
    return ", ".join(dict.fromkeys(answer.test for answer in comparison.answers(metric))) or "not testable"


def looks_cell(record: RecipeRecord) -> str:
    """Returns the looks at test of every run, once where they are as many."""
    if record.looks is None:
        return NOTHING
    return str(record.looks[0]) if len(set(record.looks)) == 1 else ", ".join(str(count) for count in record.looks)


def _published_name(result: Published) -> str:
    return f"{result.name} (published)"
