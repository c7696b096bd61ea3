"""Image quality and the baselines without a network as figures, and as the report tells them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.evaluation.baselines import ALL_MEASURES, ALL_PNEUMONIA
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.judgement import Judgement
from cxr_jax.evaluation.quality import ImageQuality, read_quality
from cxr_jax.evaluation.quality_audit import FEW, MeasureComparison
from cxr_jax.reporting.numbers import interval_text
from cxr_jax.reporting.style import BLUE, GREY, INK, ORANGE, VALIDATION_COLOUR, WIDTH, new_figure, save, styled
from cxr_jax.reporting.wording import counted
from cxr_jax.runs.folder import RunFolder

QUALITY_CAPTIONS = (
    (
        "quality",
        "Chance that a wrongly called image has a higher value than a rightly called one of its class, with its "
        "interval; filled where a difference is shown after correction for several measures.",
    ),
)
BASELINE_CAPTIONS = (
    (
        "baselines",
        "ROC-AUC on test of scores that need no network, with intervals, beside the network's; diamonds: validation.",
    ),
)

_KINDS = {
    "false_positives": ("false positives", "NORMAL called PNEUMONIA", "NORMAL"),
    "false_negatives": ("false negatives", "PNEUMONIA called NORMAL", "PNEUMONIA"),
}
_OVER_EXPOSURE = "bright_area"

_OWN_TITLES = {ALL_MEASURES: "All measures together", ALL_PNEUMONIA: "All called PNEUMONIA"}


def draw_quality(folder: str | Path, quality: ImageQuality, judgement: Judgement) -> list[Path]:
    """Draws the figures into `folder` as PNG and SVG, and returns the paths; none shows a radiograph.

    Args:
        folder: made if need be; figures of the same name are replaced.
        quality: what is known of the images without the network.
        judgement: that of the network on the same images.

    Raises:
        UserError: a file cannot be written.
    """
    figures = {"quality": quality_figure(quality), "baselines": baselines_figure(quality, judgement)}
    return [path for name, figure in figures.items() for path in save(figure, folder, name)]


def quality_figure(quality: ImageQuality) -> Figure:
    """Returns, for both kinds of error side by side, the chance that an error has the higher value of every measure."""
    names = [name for name, told in quality.measures.items() if _varies(quality, name)]
    with styled():
        figure = new_figure(WIDTH, 0.6 * max(len(names), 3) + 2)
        panels = figure.subplots(2, 1, sharex=True)
        for axes, (kind, (plural, _, _)), colour in zip(panels, _KINDS.items(), (BLUE, ORANGE), strict=True):
            compared = quality.audit[kind]
            entries = [compared.measures.get(name) for name in names]
            for place, entry in enumerate(entries):
                # Without an interval a point would look like knowledge.
                if entry is not None and entry.higher.interval is not None:
                    shown = entry.verdict in ("higher", "lower")
                    _draw_interval(axes, place, entry.higher.value, entry.higher.interval, colour, shown)
            if not any(entry is not None and entry.higher.interval for entry in entries):
                axes.text(
                    0.5, 0.5, "too few to compare", transform=axes.transAxes, ha="center", backgroundcolor="white"
                )
            axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
            axes.set(xlim=(-0.02, 1.02))
            axes.set_title(f"{counted(compared.errors, plural)}\nbeside {counted(compared.right, 'right calls')}")
            _name_rows(axes, [quality.measures[name].title for name in names])
        panels[-1].set_xlabel("Chance of a higher value")
    return figure


def baselines_figure(quality: ImageQuality, judgement: Judgement) -> Figure:
    """Returns the ROC-AUC of every baseline on test and validation below that of the network."""
    rows = [("This network", judgement.test.metrics["roc_auc"], _validation_auc(judgement), INK)]
    for name, baseline in quality.baselines.items():
        if baseline is not None:
            rows.append((_title(quality, name), baseline.test["roc_auc"], baseline.validation_roc_auc, BLUE))
    with styled():
        figure = new_figure(WIDTH, 0.3 * len(rows) + 1.4)
        axes = figure.subplots()
        for place, (_, measured, validation, colour) in enumerate(rows):
            if measured.value is not None:
                _draw_interval(axes, place, measured.value, measured.interval, colour, shown=True)
            if validation is not None:
                axes.plot(validation, place - 0.22, marker="D", markersize=3.5, color=VALIDATION_COLOUR)
        axes.axvline(0.5, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
        drawn = [measured for _, measured, _, _ in rows if measured.value is not None]
        ends = [measured.interval.low if measured.interval else measured.value for measured in drawn]
        lowest = min([0.47, *ends]) - 0.02
        axes.set(xlim=(max(lowest, 0), 1.01), xlabel="ROC-AUC")
        axes.plot((), (), marker="o", color=GREY, label="test")
        axes.plot((), (), marker="D", markersize=3.5, linestyle="none", color=VALIDATION_COLOUR, label="validation")
        # outside the axes: inside, its marks would be taken for those of a row
        figure.legend(loc="outside lower center", ncols=2)
        _name_rows(axes, [title for title, _, _, _ in rows])
    return figure


def _draw_interval(axes: Axes, place: float, value: float, interval: Interval | None, colour: str, shown: bool) -> None:
    """Draws a point with its interval on row `place`; hollow where nothing is shown."""
    if interval is not None:
        axes.plot((interval.low, interval.high), (place, place), color=colour, linewidth=1.3)
    face = colour if shown else "white"
    axes.plot(value, place, marker="o", markersize=5.5, color=colour, markerfacecolor=face)


def _name_rows(axes: Axes, titles: list[str]) -> None:
    axes.set_yticks(np.arange(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _validation_auc(judgement: Judgement) -> float | None:
    validation = judgement.validation
    return None if validation is None else validation.metrics["roc_auc"].value


def _title(quality: ImageQuality, name: str) -> str:
    return _OWN_TITLES.get(name) or quality.measures[name].title


def _varies(quality: ImageQuality, name: str) -> bool:
    """Returns whether a measure differs between test images of one class."""
    return any(compared.measures.get(name) is not None for compared in quality.audit.values())


def quality_of(run: RunFolder) -> dict[str, Any] | None:
    """Returns what the report says of image quality and baselines, ready to be laid out; None if the run has neither.

    Raises:
        UserError: quality.json is damaged, or of another version.
    """
    if not run.quality.is_file():
        return None
    quality = read_quality(run.quality)
    return {
        "measures": quality.measures,
        "splits": [
            {"name": name, "images": split.images, "outside": split.outside} for name, split in quality.splits.items()
        ],
        "errors": [_told_errors(quality, kind) for kind in _KINDS],
        "baselines": _told_baselines(quality),
        "constant": [_title(quality, name) for name, entry in quality.baselines.items() if entry is None],
    }


def over_exposure_text(quality: ImageQuality, kind: str) -> str | None:
    """Returns in one sentence whether errors of a kind are over-exposed, with what the claim rests on.

    Claim and interval are of one test, that of the chance that an error has more bright area than a right call. None
    where nothing can be compared.
    """
    compared, (plural, _, label) = quality.audit[kind], _KINDS[kind]
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
    chance = (
        f"in {higher:.1%} of pairs (95 % interval {interval.low:.1%} to {interval.high:.1%}; 50 % is no "
        "relation) one of them has more bright area than a right call"
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


def _told_errors(quality: ImageQuality, kind: str) -> dict[str, Any]:
    """Returns one kind of error with a row of text for every measure."""
    plural, explained, label = _KINDS[kind]
    compared = quality.audit[kind]
    telling = _most_telling(compared.measures)
    rows = []
    for name, told in quality.measures.items():
        entry = compared.measures.get(name)
        if entry is None:
            continue
        interval, higher, p_value = entry.interval, entry.higher, entry.adjusted_p_value
        unit = told.unit
        rows.append(
            {
                "title": told.title + (f", {unit}" if unit not in ("", "share") else ""),
                "of_errors": value_text(entry.error_mean, unit),
                "of_right": value_text(entry.right_mean, unit),
                "difference": value_text(entry.difference, unit),
                "ends": f"({value_text(interval.low, unit)} to {value_text(interval.high, unit)})" if interval else "",
                "higher": f"{higher.value:.3f}",
                "higher_ends": interval_text(higher.interval),
                "p_value": "–" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}",
                "shown": entry.verdict in ("higher", "lower"),
                "matters": name in telling,
            }
        )
    return {
        "errors": counted(compared.errors, plural),
        "explained": explained,
        "right": counted(compared.right, f"{label} images"),
        "over_exposure": over_exposure_text(quality, kind),
        "rows": rows,
    }


def _told_baselines(quality: ImageQuality) -> list[dict[str, Any]]:
    """Returns the baselines that there are, each with its title, judged metrics and ROC-AUC on validation."""
    return [
        {
            "name": name,
            "title": _title(quality, name),
            "test": entry.test,
            "validation_roc_auc": entry.validation_roc_auc,
        }
        for name, entry in quality.baselines.items()
        if entry is not None
    ]


_DIGITS = {"grey levels": 1, "degrees": 2}


def value_text(value: float, unit: str) -> str:
    """Returns a value of a measure as text: shares as per cent, pixels whole, others with a few digits."""
    if unit == "share":
        text = f"{value:.2%}"
    elif unit == "pixels":
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{_DIGITS.get(unit, 3)}f}"
    # A small negative number that is rounded to nothing keeps its sign otherwise.
    return text if any(digit in text for digit in "123456789") else text.removeprefix("-")
