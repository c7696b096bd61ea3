"""`cxr-jax compare RUN_OR_TABLE...`: recipes side by side on the same images, with paired tests and costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cxr_jax.config.command_line import Positional, parse, require_judging_options
from cxr_jax.config.schema import OperatingPointConfig
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import CLASS_NAMES

if TYPE_CHECKING:
    from cxr_jax.evaluation.comparison_record import ClassComparison, Comparison
    from cxr_jax.reporting.recipe_records import RecipeRecord

SUMMARY = "compare recipes over their seeds, on the same images, with paired tests and costs"

MARKS = "comparison"
"""Name of the marks around a comparison in a Markdown file; the text outside is left as it is."""

FILES = ("comparison.json", "comparison.md", "recipes.csv", "pairs.csv", "costs.csv", "errors.csv")
"""Files of --out beside the figure."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # run folders, tables (CSV), or folders of them; runs or tables whose paths differ in seed0, seed1, ... alone are
    # one recipe; NAME=PATH gives it a name
    recipes: Annotated[tuple[str, ...], Positional("RUN_OR_TABLE...")] = ()
    reference: str = ""  # name of the recipe that every other is compared with; by default every pair is tested
    # the operating point: of each run, or chosen anew by one rule for all on the validation predictions of each run
    rule: Literal["own", "youden", "sensitivity", "cost_ratio"] = "own"
    # rule sensitivity: the highest threshold that reaches it on validation
    target_sensitivity: float = OperatingPointConfig.target_sensitivity
    # rule cost_ratio: how many false alarms a missed pneumonia is worth
    cost_ratio: float = OperatingPointConfig.cost_ratio
    resamples: int = Confidence.resamples  # of the group bootstrap
    out: str = ""  # new or empty folder for tables (Markdown, CSV), comparison.json and the figure (PNG, SVG)
    replace: bool = False  # let --out replace an earlier comparison
    markdown: str = ""  # file that gets the tables as a block between marks; text around the marks stays


def main(arguments: list[str]) -> None:
    """Compares what `arguments` name; UserError for every mistake in it or in the options."""
    options = parse(Options, arguments, prog="cxr-jax compare", description=SUMMARY)
    _check(options)
    terminal = Terminal()
    with terminal.waiting(f"Comparing {', '.join(options.recipes)}"):
        from cxr_jax.reporting.comparison_page import introduction, terminal_tables
        from cxr_jax.reporting.recipe_records import read_recipe
        from cxr_jax.runs.recipes import find_recipes
        from cxr_jax.vocabulary import DISCLAIMER

        files = find_recipes(options.recipes)
        # Refused before the work, so that nobody waits for an answer that cannot be kept.
        if options.out:
            _check_free(Path(options.out), replace=options.replace)
        records = [read_recipe(entry, _rule(options)) for entry in files]
        comparison = _compare(records, Confidence(resamples=options.resamples), options.reference or None)
        written = _write(options, arguments, comparison, records)
    for sentence in (sentence for record in records for sentence in record.left_out):
        terminal.say(sentence)
    terminal.show(introduction(comparison))
    for table in terminal_tables(comparison, records):
        terminal.say("")
        terminal.show(table)
    terminal.say("")
    for path in written:
        terminal.say(f"Written: {path}")
    if not written:
        terminal.say("Next: the same command with --out FOLDER keeps these tables, as Markdown, CSV, JSON and a figure")
    terminal.say(DISCLAIMER)


def _check(options: Options) -> None:
    """Raises UserError for options that say too little or lie out of range."""
    if not options.recipes:
        raise UserError("name runs or tables: cxr-jax compare RUN_OR_TABLE...", EXIT_USAGE)
    require_judging_options(options.target_sensitivity, options.cost_ratio, options.resamples)
    if options.replace and not options.out:
        raise UserError("--replace says what --out may do: name a folder with --out", EXIT_USAGE)
    if options.markdown and not options.markdown.endswith(".md"):
        raise UserError(f"--markdown names a Markdown file, ending in .md, not {options.markdown}", EXIT_USAGE)


def _check_free(folder: Path, *, replace: bool) -> None:
    """Raises UserError if the folder holds something, unless that is an earlier comparison and may be replaced."""
    from cxr_jax.runs.files import is_begun

    if is_begun(folder, "comparison", FILES[0]) and not replace:
        raise UserError(f"{folder} holds a comparison already: choose another --out, or --replace it")


def _rule(options: Options) -> dict[str, Any] | None:
    if options.rule == "own":
        return None
    names = ("rule", "target_sensitivity", "cost_ratio")
    return {name: getattr(options, name) for name in names}


def _compare(
    records: Sequence[RecipeRecord], confidence: Confidence, reference: str | None
) -> Comparison | ClassComparison:
    """Returns the comparison; UserError, with the paths of the tables, if two are over different images or classes."""
    from cxr_jax.evaluation.compare_classes import ClassRecipe, compare_classes, with_equal_classes
    from cxr_jax.evaluation.comparison import compare
    from cxr_jax.evaluation.seeds import same_images

    recipes = [record.recipe for record in records]
    tables = [table for recipe in recipes for table in recipe.tables]
    paths = [str(path) for record in records for path in record.paths]
    of_classes = [isinstance(recipe, ClassRecipe) for recipe in recipes for _ in recipe.tables]
    if any(of_classes) and not all(of_classes):
        other, two = paths[of_classes.index(True)], paths[of_classes.index(False)]
        raise UserError(
            f"{two} is of {' and '.join(CLASS_NAMES)}, and {other} of other classes: compare recipes of the same; "
            "cxr-jax judge --merge makes tables of NORMAL and PNEUMONIA of exclusive classes"
        )
    if not any(of_classes):
        same_images(tables, paths)
        return compare(recipes, confidence, reference=reference)
    same_images(with_equal_classes(tables, paths), paths)
    return compare_classes(recipes, confidence, reference=reference)


def _write(
    options: Options,
    arguments: Sequence[str],
    comparison: Comparison | ClassComparison,
    records: Sequence[RecipeRecord],
) -> list[Path]:
    """Writes what --out and --markdown ask for, and returns the paths."""
    from cxr_jax.evaluation.comparison_record import write_comparison
    from cxr_jax.reporting.comparison_csv import costs_csv, errors_csv, pairs_csv, recipes_csv
    from cxr_jax.reporting.comparison_figure import NAME, comparison_figure
    from cxr_jax.reporting.comparison_page import comparison_markdown
    from cxr_jax.reporting.style import save
    from cxr_jax.reporting.tables import write_block
    from cxr_jax.runs.files import write_text

    written: list[Path] = []
    folder = Path(options.out)
    if options.out:
        text = f"# Comparison\n\n{comparison_markdown(comparison, records, figure=f'{NAME}.png')}"
        texts = (text, recipes_csv(comparison), pairs_csv(comparison), costs_csv(records), errors_csv(records))
        write_comparison(folder / FILES[0], comparison)
        for name, content in zip(FILES[1:], texts, strict=True):
            write_text(folder / name, content)
        written += [*(folder / name for name in FILES), *save(comparison_figure(comparison), folder, NAME)]
    if options.markdown:
        path = Path(options.markdown)
        figure = _relative(folder / f"{NAME}.png", path) if options.out else ""
        block = comparison_markdown(comparison, records, links=_links(records, path), figure=figure)
        block += f"\nMade by `{as_typed('cxr-jax', 'compare', *arguments)}`.\n"
        write_block(path, MARKS, block, title="Results")
        written.append(path)
    return written


def _links(records: Sequence[RecipeRecord], markdown: Path) -> dict[str, str]:
    """Returns the address of every recipe's folder, relative to the Markdown file, for those that lie below it."""
    from cxr_jax.runs.recipes import recipe_of

    links = {}
    for record in records:
        folder = recipe_of(record.paths[0])
        if folder.is_dir() and folder.is_relative_to(markdown.resolve().parent):
            links[record.recipe.name] = _relative(folder, markdown)
    return links


def _relative(path: Path, markdown: Path) -> str:
    return Path(os.path.relpath(path.resolve(), markdown.resolve().parent)).as_posix()
