"""The checks of heat maps as figures, as a table in the terminal, and as the report tells them beside the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cxr_jax.evaluation.numbers import TO, with_interval
from cxr_jax.explain.record import MapChecks, read_checks
from cxr_jax.explain.verdict import Mean, Verdict
from cxr_jax.reporting.style import (
    AMBER,
    BLUE,
    GREY,
    ON_DARK,
    ORANGE,
    SKY,
    SMALLEST_TEXT,
    WIDTH,
    new_figure,
    save,
    styled,
)
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.gallery import Gallery, gallery_path, read_gallery
from cxr_jax.runs.ledger import read_looks
from cxr_jax.terminal import as_typed

if TYPE_CHECKING:
    from rich.table import Table

CAPTIONS = (
    (
        "explanation_randomisation",
        "Weights drawn anew from the classifier down: likeness to the trained network's maps (bands: 95 % intervals), "
        "and the maps of some images. Dotted, maps of different images under the trained network.",
    ),
    (
        "explanation_curves",
        "Probability of the explained class while pixels are brought back or greyed out, the hottest first, "
        "beside random maps and the maps of other images; the difference of the areas is taken image by image.",
    ),
)
"""Name and caption of every figure; none shows a radiograph."""

MOST_PICTURES = 12
"""How many explanations a report shows; the run folder holds all."""


@dataclass(frozen=True)
class Explanations:
    """What the report says of a run's explanations.

    Attributes:
        pictures: paths to show where a page of cases has no gallery, or there is no page.
        galleries: pages of cases.
        further_pictures: how many others lie in the run folder.
        checks: None if the maps were not checked.
        warnings: what must stand beside the pictures.
        command: what checks the maps.
    """

    pictures: tuple[Path, ...]
    galleries: tuple[Gallery, ...]
    further_pictures: int
    checks: MapChecks | None
    warnings: tuple[str, ...]
    command: str

    @property
    def checked(self) -> str:
        """In words what was checked, and on what; empty if nothing was."""
        return heading(self.checks) if self.checks else ""

    @property
    def overlap(self) -> str:
        """In words how the coarse lung field lies on lung masks; empty where there are none."""
        return overlap_text(self.checks) if self.checks else ""


def draw_checks(folder: str | Path, findings: MapChecks, original: np.ndarray, examples: np.ndarray) -> list[Path]:
    """Draws the figures of CAPTIONS into `folder`, as PNG and SVG, and returns the paths.

    Args:
        folder: made if need be; figures of the same name are replaced.
        findings: with cascade and curves.
        original: maps [E, h, w] of the trained network in 0..1.
        examples: maps [E, L, h, w] of the same images at every level of the cascade.

    Raises:
        UserError: a file cannot be written.
    """
    figures = (randomisation_figure(findings, original, examples), curves_figure(findings))
    return [path for (name, _), figure in zip(CAPTIONS, figures, strict=True) for path in save(figure, folder, name)]


def randomisation_figure(findings: MapChecks, original: np.ndarray, examples: np.ndarray) -> Figure:
    """Returns the cascade of randomisation, a row for every level: likeness, and the maps; arguments as `draw_checks`.

    It is drawn on a dark sheet, so that the colours of the maps are the same on a light and on a dark screen.
    """
    cascade = findings.cascade
    rows = ["trained", *cascade.levels]
    places = np.arange(1, len(rows))
    with styled(), matplotlib.rc_context(ON_DARK):
        figure = new_figure(WIDTH, 0.42 * len(rows) + 1.9)
        cells = figure.add_gridspec(len(rows), 1 + len(original), width_ratios=[4, *[0.85] * len(original)])
        axes = figure.add_subplot(cells[:, 0])
        for line, colour, label in (
            (cascade.rank_correlation, SKY, "rank correlation"),
            (cascade.similarity, AMBER, "structural similarity"),
        ):
            axes.fill_betweenx(places, line.low, line.high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(line.value, places, color=colour, label=label)
            axes.plot([1, line.value[0]], [0, 1], color=colour, linestyle=(0, (4, 2)))
        axes.axvline(cascade.other_images, color=GREY, linestyle=":", label="of different images")
        axes.set(xlim=(-0.3, 1.05), ylim=(len(rows) - 0.5, -0.5), xlabel="Likeness")
        axes.set_yticks(range(len(rows)), rows)
        figure.legend(loc="outside lower left")
        for column, first in enumerate(original):
            for row, heat in enumerate((first, *examples[column])):
                picture = figure.add_subplot(cells[row, 1 + column])
                picture.imshow(heat, cmap="inferno", vmin=0, vmax=1, interpolation="nearest")
                picture.set_axis_off()
    return figure


def curves_figure(findings: MapChecks) -> Figure:
    """Returns insertion and deletion curves of each class beside those of random maps and of other images' maps."""
    curves = findings.curves
    numbers = {verdict.check.name: verdict.means for verdict in findings.checks}
    looks = ((BLUE, "-"), (GREY, "--"), (ORANGE, ":"))
    shown = [(explained, *told) for explained, kinds in curves.by_class.items() for told in kinds.items()]
    with styled():
        figure = new_figure(WIDTH, 2.75 * len(shown))
        panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axes, (explained, kind, lines) in zip(panels, shown, strict=True):
            for (name, line), (colour, style) in zip(lines.items(), looks, strict=True):
                label = f"{name}, area {np.trapezoid(line, curves.shares):.3f}"
                axes.plot(curves.shares, line, color=colour, linestyle=style, label=label)
            beyond = mean_text(numbers[kind][explained], signed=True)
            axes.set_title(f"{explained}, {kind}\n{beyond} beside random", fontsize=SMALLEST_TEXT)
            axes.set(xlim=(0, 1), ylim=(-0.02, 1.04), ylabel="Probability")
            axes.set_xlabel(f"Share of pixels {_DONE.get(kind, kind)}, hottest first")
            axes.legend(loc="best")
    return figure


_DONE = {"insertion": "brought back", "deletion": "greyed out"}


def checks_table(findings: MapChecks) -> Table:
    """Returns verdict, number and rule of every check, for the terminal."""
    from rich.table import Table

    table = Table(title=heading(findings), title_justify="left", caption_justify="left")
    for name in ("check", "verdict", "value (95 %)", "rule for each class"):
        table.add_column(name, overflow="fold")
    for verdict in findings.checks:
        style = {"passes": "green", "fails": "bold red"}.get(verdict.word, "yellow")
        numbers = "\n".join(number_texts(verdict)) or "–"
        table.add_row(verdict.check.title, f"[{style}]{verdict.word}[/]", numbers, verdict.check.rule)
    return table


def heading(findings: MapChecks) -> str:
    """Returns in words what was checked, and on what."""
    classes = ", ".join(f"{count} for {name}" for name, count in findings.explained.items() if count)
    blank = f"; {findings.blank} more were blank and left out" if findings.blank else ""
    return (
        f"Grad-CAM at {findings.stage}, iteration {findings.step:,}, {findings.images} validation images of "
        f"{findings.groups} groups ({classes or 'none'}){blank}"
    )


def overlap_text(findings: MapChecks) -> str:
    """Returns in words how the coarse lung field lies on the lung masks; empty where there are no masks."""
    found = findings.field_overlap
    if found is None:
        return ""
    return (
        f"On the {found.images} images with a lung mask the coarse lung field, which stands in where there is none, "
        f"overlaps with it by a Dice of {mean_text(found.dice, signed=False)} and an IoU of "
        f"{mean_text(found.iou, signed=False)}."
    )


def mean_text(mean: Mean, *, signed: bool) -> str:
    """Returns a mean with the ends of its interval; a difference is `signed`."""
    return with_interval(mean.value, mean, "+.3f" if signed else ".3f", word=TO)


def number_texts(verdict: Verdict) -> list[str]:
    """Returns the numbers behind a verdict, a line for each class; empty where there is no verdict."""
    signed = "less that" in verdict.check.measure
    return [f"{name} {mean_text(mean, signed=signed)}" for name, mean in verdict.means.items()]


def explanations_of(run: RunFolder) -> Explanations:
    """Returns what the report says of a run's explanations.

    Raises:
        UserError: checks.json is damaged or of another version.
    """
    paths = sorted(run.explanations.glob("*.png")) if run.explanations.is_dir() else []
    # the section on boxes of readers has these
    paths = [path for path in paths if path.stem not in ("boxes", "boxes-val")]
    pages = [path for path in paths if path.stem == "panel" or path.stem.startswith("panel-")]
    galleries = [gallery for page in pages if (gallery := read_gallery(page)) is not None]
    pages = [page for page in pages if not gallery_path(page).is_file()]
    shown = pages or ([] if galleries else paths[:MOST_PICTURES])
    findings = read_checks(run)
    return Explanations(
        pictures=tuple(shown),
        galleries=tuple(galleries),
        further_pictures=len(paths) - len(shown) - len(galleries),
        checks=findings,
        warnings=tuple(_warnings(run, findings)),
        command=as_typed("cxr-jax", "explain", run.path, "--check"),
    )


def _warnings(run: RunFolder, findings: MapChecks | None) -> list[str]:
    """Returns what must be said beside pictures whose checks failed, were not made or belong to another network."""
    if findings is None:
        return ["These maps were not checked. Until they are, nothing says that they show what the network learned."]
    warnings = []
    failed = [verdict for verdict in findings.checks if verdict.passes is False]
    if failed:
        made = sum(verdict.passes is not None for verdict in findings.checks)
        titles = "; ".join(verdict.check.title[0].lower() + verdict.check.title[1:] for verdict in failed)
        warnings.append(
            f"These maps fail {len(failed)} of {made} checks, so do not take them for what they should be. A map that "
            f"can be trusted {titles}."
        )
    looks = read_looks(run)
    if looks and looks[-1].get("step") not in (None, findings.step):
        warnings.append(
            f"The checks were made at iteration {findings.step:,}, and the run now stands at iteration "
            f"{looks[-1]['step']:,}: make them again."
        )
    return warnings
