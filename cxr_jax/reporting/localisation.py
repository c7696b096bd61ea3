"""`explain RUN --boxes`: measured, stored, drawn, and told in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxr_jax.evaluation.localisation import CENTRED, MEAN, Localisation, Part, Rate, Score
from cxr_jax.evaluation.numbers import TO, measured_text
from cxr_jax.explain.localise import Asked, Localised, Picture, localise
from cxr_jax.images.boxes import Box
from cxr_jax.inference.restore import restore_run
from cxr_jax.reporting.boxes import picture_beside, told_scores
from cxr_jax.reporting.report import write_report_anew
from cxr_jax.runs.files import atomic_path
from cxr_jax.runs.folder import RunFolder
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import DISCLAIMER

DRAWN, FOUND = "#56B4E9", "#E69F00"
"""Colours of the boxes of readers and of maps, for every kind of colour vision."""

_COLUMNS = 4


def tell_localisation(run: RunFolder, asked: Asked, terminal: Terminal) -> None:
    """Scores a run's maps by boxes, stores record and picture, and prints what was found; UserError as `localise`."""
    with terminal.waiting(f"Restoring the network of {run.path}"):
        trained = restore_run(run)
    found = localise(run, trained, asked, track=terminal.track)
    for note in found.notes:
        terminal.say(f"Not scored: {note}")
    for line in localisation_rows(found.localisation):
        terminal.say(line)
    terminal.say(f"Record: {found.path}")
    terminal.say(f"Picture: {_draw(run, found)}")
    if report := write_report_anew(run):
        terminal.say(f"Report: {report}")


def localisation_rows(localisation: Localisation) -> list[str]:
    """Returns lines for the terminal: for each finding, and all together, how often maps find what was drawn."""
    lines = [
        f"Maps of {localisation.architecture} at {localisation.stage} against boxes of readers, on "
        f"{len(localisation.files)} images of {localisation.dataset}"
        + (", phantoms and no patients" if localisation.phantom else "")
        + f". Boxes of maps are around all that reaches {' or '.join(map(str, localisation.levels))} of 255.",
    ]
    for part in localisation.parts:
        lines += ["", *_rows_of(part)]
    lines += [
        "",
        "FP: boxes per map that find nothing. The centred box and the mean box saw no image: they come from the boxes",
        "of other patients. In brackets are 95 % intervals over patients.",
    ]
    return lines


def _rows_of(part: Part) -> list[str]:
    blank = f", {part.blank} blank" if part.blank else ""
    lines = [
        f"{part.name}: {_count(part.boxes, 'box', 'boxes')} in {_count(part.images, 'image', 'images')} of "
        f"{_count(part.groups, 'patient', 'patients')}, {_count(part.maps, 'map', 'maps')}{blank}",
        f"  {'':12} {'network':>30} {'FP':>5} {CENTRED:>14} {MEAN:>10}  {'more than ' + MEAN}",
    ]
    lines += [_row(*told) for told in told_scores(part)]
    lines.append(f"  A place by lot lies in a box with a chance of {part.covered:.1%}.")
    return lines


def _row(title: str, score: Score) -> str:
    network = f"{_of(score.network)} {measured_text(score.network.share, '.0%', word=TO)}"
    false = "" if score.network.false_positives is None else f"{score.network.false_positives:.2f}"
    blind = [_of(score.chance[name]) if score.chance else "–" for name in (CENTRED, MEAN)]
    more = measured_text(score.more[MEAN], "+.0%", word=TO) if score.chance else "–"
    return f"  {title:12} {network:>30} {false:>5} {blind[0]:>14} {blind[1]:>10}  {more}"


def _of(rate: Rate) -> str:
    return f"{rate.found} of {rate.of}"


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _draw(run: RunFolder, found: Localised) -> str:
    """Writes a page with some of the maps and their boxes, and returns where."""
    path = picture_beside(run, found.path, found.localisation)
    with atomic_path(path) as temporary:
        draw_localisation(found.localisation, found.pictures).savefig(temporary, format="png", dpi=110)
    return str(path)


def draw_localisation(localisation: Localisation, pictures: Sequence[Picture]) -> Figure:
    """Returns a page of maps over their radiographs, with the boxes of readers and of the maps."""
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(max(3.1 * columns, 6.2), 3.4 * rows + 1.0), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(rows, columns, squeeze=False).ravel():
        axes.axis("off")
    for axes, picture in zip(figure.axes, pictures, strict=False):
        height, width = picture.radiograph.shape[:2]
        across, down = width / picture.boxed.width, height / picture.boxed.height
        axes.imshow(picture.radiograph)
        for box in picture.boxed.answer.boxes:
            axes.add_patch(_outline(box.scaled(across, down), FOUND, "--"))
        for box in picture.boxed.drawn:
            axes.add_patch(_outline(box.scaled(across, down), DRAWN, "-"))
        axes.set_title(f"{picture.boxed.finding}\n{picture.boxed.file}", fontsize=7, parse_math=False)
    phantom = "Phantoms: drawn by a program, no patients. " if localisation.phantom else ""
    levels = " and ".join(map(str, localisation.levels))
    figure.suptitle(
        f"{phantom}Solid blue: boxes of readers. Dashed orange: around all that reaches {levels} of 255.\n"
        f"Maps of {localisation.architecture} at {localisation.stage}, drawn by lot. {DISCLAIMER}",
        fontsize=7.5,
        parse_math=False,
    )
    return figure


def _outline(box: Box, colour: str, line: str) -> Rectangle:
    look = {"edgecolor": colour, "linestyle": line, "linewidth": 1.3}
    return Rectangle((box.left, box.top), box.width, box.height, fill=False, **look)
