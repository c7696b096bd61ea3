"""What errors of every recipe go with, and whether its heat maps can be trusted: audits and checks over its seeds."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_jax.evaluation.numbers import TO, interval_text, number_text, range_text
from cxr_jax.evaluation.pooled_audit import PooledAudit, PooledMeasure
from cxr_jax.reporting.comparison_cells import NOTHING, p_text
from cxr_jax.reporting.quality import KINDS, form_of
from cxr_jax.reporting.recipe_records import RecipeRecord
from cxr_jax.reporting.wording import counted

BRIGHTNESS = "mean"
"""The measure that is told in a sentence."""

_CLAIMS = {
    "higher": "are brighter than",
    "lower": "are darker than",
    "not shown": "are not shown to be brighter or darker than",
}


def quality_rows(records: Sequence[RecipeRecord]) -> list[list[str]]:
    """Returns, for every recipe whose runs all keep an audit, errors beside the measures that they are known by."""
    rows = [["Recipe", "Errors by seed", "Brightness of errors less right calls", "Measures shown to differ"]]
    for record in records:
        for kind, audit in record.audits.items():
            entry = audit.measures.get(BRIGHTNESS)
            told = NOTHING if entry is None else _difference(entry, record.measures[BRIGHTNESS].unit)
            shown = [
                f"{record.measures[name].title} {pooled.verdict}"
                for name, pooled in audit.measures.items()
                if pooled is not None and pooled.verdict in ("higher", "lower")
            ]
            untested = "none" if audit.tested else "not tested"
            counts = ", ".join(map(str, audit.errors))
            name = f"{record.recipe.name}\n{KINDS[kind].plural}"
            rows.append([name, counts, told, "\n".join(shown) or untested])
    return rows


def _difference(entry: PooledMeasure, unit: str) -> str:
    """Returns a difference with its interval, the seeds that agree on it, and the corrected p-value of the chance."""
    form = form_of(unit, signed=True)
    lines = [number_text(entry.difference, form)]
    if entry.interval is not None:
        lines.append(interval_text(entry.interval, form, word=TO))
    lines.append(f"higher in {entry.higher_in} of {counted(len(entry.differences), 'seeds')}")
    if entry.adjusted_p_value is not None:
        lines.append(f"p {p_text(entry.adjusted_p_value)}")
    return "\n".join(lines)


def quality_notes(records: Sequence[RecipeRecord]) -> tuple[str, ...]:
    """Returns how the rows are to be read, and one sentence a recipe on the brightness of its false positives."""
    told = [
        brightness_text(record.recipe.name, record.audits["false_positives"]) for record in records if record.audits
    ]
    return (
        "Wrong calls at the operating point beside right calls of the same class, pooled over the seeds of a recipe. "
        "Intervals are for other patients and other seeds, the estimates of the seeds taken to move together with the "
        "patients. P-values are of the chance that an error has the higher value, corrected for the measures of a row "
        "(Holm 1979); with fewer than 20 images on a side in any seed nothing is tested. A difference is no cause.",
        *filter(None, told),
    )


def brightness_text(name: str, audit: PooledAudit) -> str | None:
    """Returns in one sentence whether false positives of a recipe are brighter; None where nothing can be compared."""
    entry = audit.measures.get(BRIGHTNESS)
    if entry is None:
        return None
    seeds = counted(len(entry.differences), "seeds")
    form = form_of("grey levels", signed=True)
    difference = number_text(entry.difference, form)
    seen = f"on average they differ by {difference} grey levels, and are brighter in {entry.higher_in} of {seeds}"
    if entry.interval is not None:
        ends = range_text(entry.interval.low, entry.interval.high, form, word=TO)
        seen += f" (95 % interval of the difference {ends})"
    if entry.verdict == "not tested":
        return f"{name}: whether false positives are brighter than right calls of NORMAL cannot be tested; {seen}."
    p_value = f"p {p_text(entry.adjusted_p_value)} corrected for {audit.tested} measures"
    return f"{name}: false positives {_CLAIMS[entry.verdict]} right calls of NORMAL ({p_value}); {seen}."


def check_rows(records: Sequence[RecipeRecord]) -> list[list[str]]:
    """Returns the verdicts of the checks of heat maps, a row for every recipe of which a run was checked."""
    titles = {
        verdict.check.name: verdict.check.title
        for record in records
        for made in record.checks
        for verdict in made.checks
    }
    rows = [["Recipe", "Seeds checked", *titles.values()]]
    for record in records:
        if record.checks:
            checked = f"{len(record.checks)} of {len(record.recipe.tables)}"
            rows.append([record.recipe.name, checked, *(_verdicts(record, name) for name in titles)])
    return rows


def _verdicts(record: RecipeRecord, name: str) -> str:
    """Returns in how many checked seeds a check passes."""
    found = [verdict.passes for made in record.checks for verdict in made.checks if verdict.check.name == name]
    given = [passes for passes in found if passes is not None]
    return f"passes in {sum(given)} of {len(given)}" if given else "no verdict"


def check_notes(records: Sequence[RecipeRecord]) -> tuple[str, ...]:
    """Returns how the verdicts are to be read, and which recipes were not checked."""
    missing = [record.recipe.name for record in records if not record.checks]
    told = (
        "Of the seeds whose heat maps were checked, and for which the check gave a verdict, those that pass. A seed "
        "that was not checked says nothing for or against its maps."
    )
    if missing:
        told += f" Not checked (cxr-jax explain RUN --check): {', '.join(missing)}."
    return (told,)
