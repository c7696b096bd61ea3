"""The figure of a comparison: every recipe with its seeds and the interval of their mean, metric by metric."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr_jax.errors import printable
from cxr_jax.evaluation.comparison_record import ClassComparison, Comparison, EndpointSummary
from cxr_jax.reporting.comparison_table import published_beside
from cxr_jax.reporting.published import Published
from cxr_jax.reporting.style import BLUE, GREY, INK, ORANGE, new_figure, styled
from cxr_jax.vocabulary import FINDINGS

NAME = "comparison"
"""Name of the figure's files."""

_PANELS = (
    ("roc_auc", "ROC-AUC"),
    ("accuracy", "Accuracy"),
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
)
_COLUMNS = len(_PANELS)
_COLOUR = {"half": BLUE, "operating_point": ORANGE}
_MARKER = {"half": "o", "operating_point": "s"}
_LABEL = {"half": "at threshold 0.5", "operating_point": "at the operating point, by its rule"}

# Share of a row that seeds stand below their mean, so that neither hides the other.
_SEED_OFFSET = 0.2

# Characters of a name on one line.
_WIDTH = 26


def _panels(compared: Comparison | ClassComparison) -> list[tuple[Comparison, str, str]]:
    """Returns what every panel shows of which comparison, and its title."""
    if isinstance(compared, Comparison):
        return [(compared, metric, title) for metric, title in _PANELS]
    panels = [(compared.together, "macro_roc_auc", "ROC-AUC, macro")]
    if compared.kind_of_classes != FINDINGS:
        panels.append((compared.together, "accuracy", "Accuracy"))
    return panels + [(part, "roc_auc", f"ROC-AUC, {name}") for name, part in compared.classes.items()]


def comparison_figure(compared: Comparison | ClassComparison) -> Figure:
    """Returns mean, interval and seeds of every recipe, published results on the same images above them.

    Args:
        compared: what `compare`, or `compare_classes`, gave.
    """
    panels = _panels(compared)
    comparison = panels[0][0]
    published = published_beside(comparison)
    names = [result.name for result in published] + list(comparison.recipes)
    thresholds = ["half"] if comparison is compared else []
    thresholds += ["operating_point"] if thresholds and comparison.has("operating_point") else []
    with styled():
        lines = -(-len(panels) // _COLUMNS)
        height = 0.55 + lines * (0.6 + len(names) * (0.36 if len(thresholds) < 2 else 0.6))
        figure = new_figure(9.0, height)
        grid = figure.subplots(lines, _COLUMNS, sharey=True, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (of_class, metric, title) in zip(grid, panels, strict=False):
            for row, result in enumerate(published):
                _draw_published(axes, row, result, metric)
            for row, recipe in enumerate(of_class.recipes.values(), start=len(published)):
                if metric in recipe.endpoints:
                    _draw_recipe(axes, row, recipe.endpoints[metric], INK, "D")
                    continue
                for index, at in enumerate(thresholds):
                    offset = (index - (len(thresholds) - 1) / 2) * 0.44
                    summary = recipe.endpoints[f"{metric}@{at}"]
                    if at == "operating_point":
                        summary = recipe.endpoints.get(f"{metric}@rule") or summary
                    _draw_recipe(axes, row + offset, summary, _COLOUR[at], _MARKER[at])
            axes.set_title(printable(title))
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axes.grid(visible=False, axis="y")
            if published:
                axes.axhline(len(published) - 0.5, color=GREY, linewidth=0.6)
        wrapped = [textwrap.fill(printable(name), _WIDTH, break_on_hyphens=False) for name in names]
        grid[0].set_yticks(range(len(names)), wrapped)
        grid[0].set_ylim(len(names) - 0.4, -0.6)
        _name_signs(figure, comparison, thresholds, bool(published))
    return figure


def _draw_recipe(axes: Axes, row: float, summary: EndpointSummary | None, colour: str, marker: str) -> None:
    """Draws interval and mean on one line and the seeds just below it; nothing where there is no value."""
    if summary is None:
        return
    interval = summary.interval
    if interval is not None:
        axes.plot((interval.low, interval.high), (row, row), color=colour, linewidth=1.4, solid_capstyle="butt")
    if len(summary.values) > 1:
        axes.plot(
            summary.values,
            [row + _SEED_OFFSET] * len(summary.values),
            linestyle="none",
            marker="o",
            markersize=4,
            markerfacecolor="none",
            markeredgecolor=colour,
            markeredgewidth=0.7,
        )
    axes.plot(summary.mean, row, marker=marker, markersize=4.2, color=colour, zorder=4)


def _draw_published(axes: Axes, row: int, result: Published, metric: str) -> None:
    value = getattr(result, metric)
    if value is not None:
        axes.plot(value, row, marker="x", markersize=5.5, markeredgewidth=1.4, color=GREY, linestyle="none")


def _name_signs(figure: Figure, comparison: Comparison, thresholds: Sequence[str], published: bool) -> None:
    """Puts the legend below all panels."""
    axes = figure.axes[0]
    several = any(recipe.seeds > 1 for recipe in comparison.recipes.values())
    beyond = " for other patients and seeds" if several else " for other patients"
    level = f"{100 * comparison.confidence.level:g} %"
    signs = [axes.plot((), (), marker="D", color=INK, markersize=4.2, label=f"mean, {level} interval{beyond}")]
    for at in thresholds:
        signs.append(axes.plot((), (), marker=_MARKER[at], color=_COLOUR[at], markersize=4.2, label=_LABEL[at]))
    if several:
        look = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.7}
        signs.append(axes.plot((), (), marker="o", linestyle="none", markersize=4, label="one seed", **look))
    if published:
        look = {"marker": "x", "linestyle": "none", "markersize": 5.5, "markeredgewidth": 1.4, "color": GREY}
        signs.append(axes.plot((), (), label="published", **look))
    figure.legend(handles=[sign[0] for sign in signs], loc="outside lower center", ncols=min(len(signs), 3))
