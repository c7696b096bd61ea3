"""`cxr-jax publish RUN... --out FOLDER`: a results folder with a table, and without radiographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import DISCLAIMER

if TYPE_CHECKING:
    from cxr_jax.reporting.published import Published

SUMMARY = "copy what shows no radiograph into a results folder, with a table of all runs"

TABLE = "table of runs"
"""Name of the marks around the table in the README of a results folder; the text outside is left as it is."""

FILMS = "whose films"
"""Likewise of the marks around what the networks are for."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    runs: Annotated[tuple[str, ...], Positional("RUN...")] = ()  # folders of evaluated runs
    out: Annotated[str, Option("FOLDER")] = ""  # the results folder; older copies of the same runs are replaced
    # published figures as first rows of the table, such as "Barnett, scratch=0.7837", name=accuracy
    published: Annotated[tuple[str, ...], Option("NAME=ACCURACY...")] = ()


def main(arguments: list[str]) -> None:
    """Publishes the runs that `arguments` name; UserError if one is not evaluated or the folder holds something
    else.
    """
    options = parse(Options, arguments, prog="cxr-jax publish", description=SUMMARY)
    if not options.runs or not options.out:
        raise UserError("name at least one run and --out FOLDER: cxr-jax publish RUN... --out FOLDER", EXIT_USAGE)

    terminal = Terminal()
    terminal.say(f"Publishing {', '.join(options.runs)} in {options.out}")
    from cxr_jax.config.loading import format_config, load_config
    from cxr_jax.reporting.tables import with_block
    from cxr_jax.runs.files import write_text, writing
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import evaluating, held
    from cxr_jax.runs.publication import publish, targets_in

    published = [_published(text) for text in options.published]
    runs = [RunFolder.open(path) for path in options.runs]
    folder = Path(options.out)
    targets = targets_in(folder, runs)
    readme = folder / "README.md"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder, f"another process is publishing in {folder}: wait until it has ended"):
        for number, (run, target) in enumerate(zip(runs, targets, strict=True)):
            with evaluating(run, reading=True):
                config = format_config(load_config(run.config).without_folders())
                publish(run, target, config, figures=number == 0)
        table = _tables(targets, published)
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        told = _told_films(targets)
        write_text(readme, with_block(with_block(text, TABLE, table), FILMS, told))
    terminal.say(f"{table}\n{told}\nPublished {len(runs)} runs in {folder}; the table stands in {readme}")
    terminal.say(f"Figures, as PNG, are those of the first, {runs[0].path}.")


def _tables(runs: Sequence[Path], published: Sequence[Published]) -> str:
    """Returns the table of runs of NORMAL and PNEUMONIA, then those of runs of other classes."""
    from cxr_jax.evaluation.judgement import judges_other_classes
    from cxr_jax.reporting.class_results import class_results
    from cxr_jax.reporting.tables import results_table
    from cxr_jax.runs.folder import RunFolder

    others = [path for path in runs if judges_other_classes(RunFolder(path).evaluation)]
    usual = [path for path in runs if path not in others]
    tables = [results_table(usual, published)] if usual or published else []
    if others:
        tables.append(class_results([RunFolder.open(path) for path in others]))
    return "\n".join(tables)


def _told_films(runs: Sequence[Path]) -> str:
    """Returns whose films the networks of runs learned from, a line for those of which the same holds."""
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.recipes import recipe_names
    from cxr_jax.runs.trained_on import told_films

    recipes: dict[str, list[str]] = {}
    for name, path in zip(recipe_names(runs), runs, strict=True):
        recipes.setdefault(told_films(RunFolder(path)), []).append(name)
    lines = (f"- {', '.join(dict.fromkeys(names))}: {told}" for told, names in recipes.items())
    return "\n".join([*lines, "", DISCLAIMER])


def _published(text: str) -> Published:
    from cxr_jax.reporting.published import Published

    name, _, value = text.rpartition("=")
    try:
        accuracy = float(value)
    except ValueError:
        accuracy = -1.0
    if not name or not 0 <= accuracy <= 1:
        raise UserError(f"--published takes NAME=ACCURACY with an accuracy from 0 to 1, not {text!r}", EXIT_USAGE)
    return Published(name, accuracy=accuracy)
