"""Image quality and the baselines without a network as the report tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cxr_jax.evaluation.baselines import ALL_MEASURES, ALL_PNEUMONIA
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import TO, interval_text, number_text, range_text
from cxr_jax.evaluation.quality import ImageQuality, MeasureDefinition, SplitQuality, read_quality
from cxr_jax.evaluation.quality_audit import FEW, MeasureComparison
from cxr_jax.reporting.comparison_cells import NOTHING, p_text
from cxr_jax.reporting.wording import counted
from cxr_jax.runs.folder import RunFolder


@dataclass(frozen=True)
class Kind:
    """A kind of error in words: its plural, what was called what, and the class that the images are of."""

    plural: str
    explained: str
    label: str


KINDS = {
    "false_positives": Kind("false positives", "NORMAL called PNEUMONIA", "NORMAL"),
    "false_negatives": Kind("false negatives", "PNEUMONIA called NORMAL", "PNEUMONIA"),
}
_OVER_EXPOSURE = "bright_area"

_OWN_TITLES = {ALL_MEASURES: "All measures together", ALL_PNEUMONIA: "All called PNEUMONIA"}


def title_of(quality: ImageQuality, name: str) -> str:
    """Returns what a baseline is called."""
    return _OWN_TITLES.get(name) or quality.measures[name].title


@dataclass(frozen=True)
class ToldMeasure:
    """One measure of one kind of error, as text; `shown` where a difference is, `matters` where it tells most."""

    title: str
    of_errors: str
    of_right: str
    difference: str
    ends: str
    higher: str
    higher_ends: str
    p_value: str
    shown: bool
    matters: bool


@dataclass(frozen=True)
class ToldErrors:
    """One kind of error: counts in words, the sentence on over-exposure, and a row for every measure."""

    errors: str
    explained: str
    right: str
    over_exposure: str | None
    rows: tuple[ToldMeasure, ...]


@dataclass(frozen=True)
class ToldBaseline:
    """A score that needs no network: judged metrics on test, and its ROC-AUC on validation."""

    name: str
    title: str
    test: dict[str, Measured]
    validation_roc_auc: float | None


@dataclass(frozen=True)
class ToldQuality:
    """What the report says of image quality and baselines.

    Attributes:
        measures: what was measured.
        splits: train, val and test.
        errors: both kinds.
        baselines: those that there are.
        constant: titles of the measures that are the same for all training images.
    """

    measures: dict[str, MeasureDefinition]
    splits: dict[str, SplitQuality]
    errors: tuple[ToldErrors, ...]
    baselines: tuple[ToldBaseline, ...]
    constant: tuple[str, ...]


def quality_of(run: RunFolder) -> ToldQuality | None:
    """Returns what the report says of image quality and baselines; None if the run has neither.

    Raises:
        UserError: quality.json is damaged, or of another version.
    """
    if not run.quality.is_file():
        return None
    quality = read_quality(run.quality)
    return ToldQuality(
        measures=quality.measures,
        splits=quality.splits,
        errors=tuple(_told_errors(quality, kind) for kind in KINDS),
        baselines=tuple(
            ToldBaseline(name, title_of(quality, name), entry.test, entry.validation_roc_auc)
            for name, entry in quality.baselines.items()
            if entry is not None
        ),
        constant=tuple(title_of(quality, name) for name, entry in quality.baselines.items() if entry is None),
    )


def over_exposure_text(quality: ImageQuality, kind: str) -> str | None:
    """Returns in one sentence whether errors of a kind are over-exposed, with what the claim rests on.

    Claim and interval are of one test, that of the chance that an error has more bright area than a right call. None
    where nothing can be compared.
    """
    compared, plural, label = quality.audit[kind], KINDS[kind].plural, KINDS[kind].label
    entry = compared.measures.get(_OVER_EXPOSURE)
    if entry is None:
        return None
    means = (
        f"on average bright areas take {entry.error_mean:.1%} of the {plural} and {entry.right_mean:.1%} of the "
        f"{label} images that were called rightly"
    )
    if entry.verdict == "not tested":
        few = min(compared.errors, compared.right) < FEW
        reason = f"with fewer than {FEW} images on a side" if few else "as the two do not overlap"
        return f"Whether the {plural} are over-exposed cannot be tested, {reason}; {means}."
    higher, interval = entry.higher.value, entry.higher.interval
    ends = range_text(interval.low, interval.high, ".1%", word=TO)
    chance = (
        f"in {higher:.1%} of pairs (95 % interval {ends}; 50 % is no relation) one of them has more bright area than "
        "a right call"
    )
    claim = {
        "higher": "are over-exposed",
        "lower": "are less exposed, not more",
        "not shown": "are not shown to be over-exposed",
    }[entry.verdict]
    told = f"The {plural} {claim}: {chance}"
    if entry.verdict == "not shown" and not interval.low <= 0.5 <= interval.high:
        tested = sum(other is not None and other.p_value is not None for other in compared.measures.values())
        told += f", which is no more than chance among {tested} measures (p {entry.adjusted_p_value:.2f})"
    return f"{told}; {means}."


def _most_telling(measures: Mapping[str, MeasureComparison | None], count: int = 2) -> list[str]:
    """Returns the measures by which errors differ most from right calls, the most telling first."""
    entries = {name: abs(entry.higher.value - 0.5) for name, entry in measures.items() if entry is not None}
    return sorted(entries, key=entries.get, reverse=True)[:count]


def _told_errors(quality: ImageQuality, kind: str) -> ToldErrors:
    """Returns one kind of error with a row of text for every measure."""
    words, compared = KINDS[kind], quality.audit[kind]
    telling = _most_telling(compared.measures)
    rows = []
    for name, told in quality.measures.items():
        entry = compared.measures.get(name)
        if entry is None:
            continue
        form, p_value, unit = form_of(told.unit), entry.adjusted_p_value, told.unit
        rows.append(
            ToldMeasure(
                title=told.title + (f", {unit}" if unit not in ("", "share") else ""),
                of_errors=number_text(entry.error_mean, form),
                of_right=number_text(entry.right_mean, form),
                difference=number_text(entry.difference, form),
                ends=interval_text(entry.interval, form, word=TO),
                higher=f"{entry.higher.value:.3f}",
                higher_ends=interval_text(entry.higher.interval),
                p_value=NOTHING if p_value is None else p_text(p_value),
                shown=entry.verdict in ("higher", "lower"),
                matters=name in telling,
            )
        )
    return ToldErrors(
        errors=counted(compared.errors, words.plural),
        explained=words.explained,
        right=counted(compared.right, f"{words.label} images"),
        over_exposure=over_exposure_text(quality, kind),
        rows=tuple(rows),
    )


_FORMS = {"share": ".2%", "pixels": ",.0f", "grey levels": ".1f", "degrees": ".2f"}


def form_of(unit: str, *, signed: bool = False) -> str:
    """Returns how `number_text` writes a measure of that unit: shares as per cent, pixels whole, others by digits.

    A small negative number that is rounded to nothing has no minus.
    """
    return f"{'+' if signed else ''}z{_FORMS.get(unit, '.3f')}"
