"""A comparison of recipes, of any classes, as tables in the terminal and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.box import HORIZONTALS
from rich.table import Table

from cxr_jax.evaluation.comparison_record import ClassComparison, Comparison
from cxr_jax.reporting import class_comparison_table, comparison_table
from cxr_jax.reporting.comparison_table import Section
from cxr_jax.reporting.recipe_records import RecipeRecord
from cxr_jax.reporting.tables import markdown_table

# Characters of a line in a header, about those of a value.
_WIDTH = 13


def introduction(comparison: Comparison | ClassComparison) -> str:
    """Returns what a comparison is on, and how its values are to be read."""
    if isinstance(comparison, ClassComparison):
        return class_comparison_table.introduction(comparison)
    return comparison_table.introduction(comparison)


def _sections(comparison: Comparison | ClassComparison, records: Sequence[RecipeRecord]) -> list[Section]:
    """Returns every table of a comparison."""
    if isinstance(comparison, ClassComparison):
        return class_comparison_table.sections(comparison, records)
    return comparison_table.sections(comparison, records)


def terminal_tables(comparison: Comparison | ClassComparison, records: Sequence[RecipeRecord]) -> list[Table]:
    """Returns the sections of a comparison as tables for the terminal."""
    tables = []
    for section in _sections(comparison, records):
        table = Table(
            title=section.title, title_justify="left", caption_justify="left", box=HORIZONTALS, show_lines=True
        )
        header, *rows = section.rows
        table.add_column(header[0], overflow="fold")
        for name in header[1:]:
            # On a narrow terminal the names give way first, and no figure is ever cut off.
            table.add_column(textwrap.fill(name, _WIDTH), justify="right", no_wrap=True, overflow="fold")
        for row in rows:
            table.add_row(*row)
        table.caption = "\n".join(section.notes) or None
        tables.append(table)
    return tables


def comparison_markdown(
    comparison: Comparison | ClassComparison,
    records: Sequence[RecipeRecord],
    *,
    links: Mapping[str, str] | None = None,
    figure: str = "",
) -> str:
    """Returns a comparison as Markdown, from its first section's heading (level 2) to its last note.

    Args:
        comparison: what `compare`, or `compare_classes`, gave.
        records: in the order of the comparison.
        links: where the name of a recipe leads to, by name; names that are missing lead nowhere.
        figure: address of the figure, relative to the file that the text is for; empty for none.
    """
    links = links or {}
    parts = [introduction(comparison)]
    if figure:
        shown = "ROC-AUC and accuracy" if isinstance(comparison, ClassComparison) else _FIGURE
        parts.append(f"![{shown} of every recipe]({figure})")
    for section in _sections(comparison, records):
        header, *rows = section.rows
        linked = [[_linked(row[0], links), *row[1:]] for row in rows]
        flat = [[cell.replace("\n(", " (").replace("\n", "<br>") for cell in row] for row in [header, *linked]]
        parts += [f"## {section.title}", markdown_table(flat).rstrip(), *section.notes]
    return "\n\n".join(parts) + "\n"


_FIGURE = "ROC-AUC, accuracy, sensitivity and specificity"


def _linked(name: str, links: Mapping[str, str]) -> str:
    return f"[{name}]({links[name]})" if name in links else name
