"""What is told of a network on films of other sources: in the terminal, and in the report."""

from __future__ import annotations

from cxr_jax.evaluation.external import EVERYTHING, External, MeasureSpread, Part, Recalibration, read_external
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import TO, measured_text, number_text, with_interval
from cxr_jax.reporting.wording import counted
from cxr_jax.runs.folder import RunFolder

_COLUMNS = ("ROC-AUC", "sensitivity", "specificity", "warned of")

_MOVED = 0.5
"""Share of the images outside the usual range from which a measure of quality is told in the terminal."""


def externals_of(run: RunFolder) -> tuple[External, ...]:
    """Returns the records of all films of other sources that a run was judged on, by name."""
    return tuple(read_external(path) for path in sorted(run.external.glob("*/external.json")))


def name_of(part: Part) -> str:
    """Returns what a part is called in a table."""
    return part.attribute if part.attribute == EVERYTHING else f"{part.attribute} {part.value}"


def external_lines(external: External) -> list[str]:
    """Returns what a person should see of a record, line by line."""
    whole = external.whole
    groups = "" if whole.groups is None else f" of {counted(whole.groups, 'groups')}"
    which = "test images" if external.images_of == "test" else "images"
    lines = [f"{whole.images:,} {which}{groups} of {external.dataset}, {_called(external)} fixed in the run:"]
    if external.classes:
        lines.append(f"Means over {', '.join(external.classes)}:")
    lines += [_header("" if external.classes else "PNEUMONIA"), *(_row(part) for part in external.parts)]
    if whole.rates.accuracy is not None:
        lines.append(f"Accuracy, the highest probability being called: {measured_text(whole.rates.accuracy, '.0%')}")
    if external.classes:
        lines += ["Each against the rest:" if whole.rates.accuracy else "Each where it is known:", _header("shown")]
        lines += [_row(found.whole, name) for name, found in external.classes.items()]
    if external.recalibration is not None:
        lines.append(told_recalibration(external.recalibration))
    for name, spread in external.scores.items():
        lines.append(
            f"Probabilities of {name} images: median {spread.here.median:.2f} here, {spread.validation.median:.2f} on "
            f"validation; one of here is the higher with a chance of "
            f"{with_interval(spread.higher_here, spread.interval, '.2f')}."
        )
    if shares := [f"{name} {measured_text(share, '.0%')}" for name, share in external.warned.items()]:
        lines.append(f"Warned of, by the network's features and by image quality: {', '.join(shares)}.")
    moved = [spread for spread in external.quality.values() if (spread.outside or 0) >= _MOVED * whole.images]
    lines += [f"{told_measure(spread)}." for spread in moved]
    return lines


def _called(external: External) -> str:
    """Returns what the images show, and at which thresholds they were called, up to the word `fixed`."""
    if external.classes:
        each = ", ".join(f"{name} {found.threshold:.4g}" for name, found in external.classes.items())
        return f"called at the thresholds ({each}) that were"
    pneumonia = f"{external.whole.pneumonia:,} of them PNEUMONIA"
    return f"{pneumonia}, called at the threshold {external.threshold:.4g} that was"


def _header(shown: str) -> str:
    return f"{'':17} {'images':>6} {shown:>9}  " + " ".join(f"{title:19}" for title in _COLUMNS).rstrip()


def _row(part: Part, name: str = "") -> str:
    rates = part.rates
    cells = [_cell(rates.roc_auc, ".2f"), *(_cell(share, ".0%") for share in (rates.sensitivity, rates.specificity))]
    warned = "" if part.warned is None else _cell(part.warned, ".0%")
    row = " ".join(f"{cell:19}" for cell in (*cells, warned))
    shown = "" if part.pneumonia is None else f"{part.pneumonia:,}"
    return f"{name or name_of(part):17} {part.images:>6,} {shown:>9}  {row}".rstrip()


def _cell(measured: Measured, form: str) -> str:
    return "-" if measured.value is None else with_interval(measured.value, measured.interval, form)


def told_recalibration(found: Recalibration) -> str:
    """Returns in a sentence what recalibration in the large would gain."""
    shift = with_interval(found.shift, found.interval, "+.1f", word=TO)
    gains = [
        f"{name.replace('_', '-')} {number_text(found.before[name], form)} to {number_text(found.after[name], form)}"
        for name, form in (("log_loss", ".2f"), ("brier", ".3f"), ("sensitivity", ".0%"), ("specificity", ".0%"))
        if found.before[name] is not None and found.after[name] is not None
    ]
    return (
        f"A shift of all logits by {shift}, fitted on the labels of these very images, would take {', '.join(gains)}. "
        "It is not applied, and the order of the images stays as it is."
    )


def told_measure(spread: MeasureSpread) -> str:
    """Returns in a sentence, without its full stop, where a measure lies here and on the training images."""
    unit = f" {spread.unit}" if spread.unit not in ("", "share") else ""
    training = "" if spread.training is None else f", {number_text(spread.training.median, '.3g')} in training"
    outside = "" if spread.outside is None else f"; {spread.outside:,} are outside the usual range"
    return f"{spread.title}: median {number_text(spread.here.median, '.3g')}{unit} here{training}{outside}"
