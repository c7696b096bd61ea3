"""The figure of a network on degraded images: one panel for each kind, and rates over severity."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.evaluation.robustness import Level, Robustness
from cxr_jax.reporting.style import BLUE, GREEN, GREY, INK, ORANGE, new_figure, save, styled

CAPTION = (
    "ROC-AUC, sensitivity and specificity at the fixed threshold, and the share of uncertain calls, on images degraded "
    "in eleven ways at five severities; 0: as they are."
)

_LINES = (
    ("roc_auc", "ROC-AUC", INK, "-"),
    ("sensitivity", "sensitivity", ORANGE, "-"),
    ("specificity", "specificity", BLUE, "-"),
    ("uncertain", "uncertain", GREEN, "--"),
    ("unlike", "unlike training", GREY, ":"),
)
_COLUMNS = 3


def draw_robustness(folder: Path, robustness: Robustness, name: str) -> list[Path]:
    """Writes the figure as `name`.png and `name`.svg, and returns their paths; UserError if they cannot be written."""
    with styled():
        return save(robustness_figure(robustness), folder, name)


def robustness_figure(robustness: Robustness) -> Figure:
    """Returns one panel for each kind of degradation, and the names of the lines in the place that is left."""
    kinds = robustness.kinds
    rows = -(-(len(kinds) + 1) // _COLUMNS)
    figure = new_figure(6.4, 1.75 * rows + 0.3)
    panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for number, kind in enumerate(kinds):
        levels = (robustness.clean, *robustness.of(kind))
        _draw(panels[number], kind, levels)
    lines = panels[0].get_legend_handles_labels()
    for panel in panels[len(kinds) :]:
        panel.set_axis_off()
    panels[len(kinds)].legend(*lines, loc="center", borderaxespad=0)
    # the panel below the last one is no panel, so that the axis is told where it ends
    for number in range(len(kinds)):
        panels[number].tick_params(labelbottom=number + _COLUMNS >= len(kinds))
    figure.supxlabel(f"severity ({robustness.images:,} images of {robustness.split})", fontsize=10)
    return figure


def _draw(panel: Axes, kind: str, levels: tuple[Level, ...]) -> None:
    severities = [level.severity for level in levels]
    for name, told, colour, style in _LINES:
        measured = [getattr(level, name) for level in levels]
        if any(each is None or each.value is None for each in measured):
            continue
        panel.plot(severities, [each.value for each in measured], style, color=colour, label=told, linewidth=1.4)
    panel.set_title(kind, fontsize=10)
    panel.set(xlim=(0, 5), ylim=(-0.02, 1.02), xticks=range(6), yticks=(0, 0.5, 1))
