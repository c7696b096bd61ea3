"""`cxr-jax sweep SWEEP.toml --out FOLDER`: train variants of a config with several seeds, and compare them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed

if TYPE_CHECKING:
    from cxr_jax.sweeps.runs import SweepRun
    from cxr_jax.sweeps.sweep import Sweep

SUMMARY = "train variants of a config with several seeds, and compare them on validation"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    sweep: Annotated[str, Positional("SWEEP.toml")] = ""  # base config, seeds, variants, grid; or a name
    # of the sweep; what is finished there is kept, what was interrupted goes on
    out: Annotated[str, Option("FOLDER")] = ""
    jobs: int = 1  # trainings side by side: each has a GPU of its own, or its share of the cores
    seeds: tuple[int, ...] = ()  # only these of the sweep's seeds
    only: tuple[str, ...] = ()  # only these variants; base is the one without changes
    list: bool = False  # print a command line for each run that is left, and train nothing
    table: bool = False  # write the tables of what is finished, and train nothing


def main(arguments: list[str]) -> None:
    """Trains what the sweep that `arguments` name has left, and writes its tables.

    Raises:
        UserError: a mistake in the sweep or the options; trainings failed; or a signal stopped them, with the exit
            code that `cxr-jax train` has for it.
    """
    options = parse(Options, arguments, prog="cxr-jax sweep", description=SUMMARY)
    _check(options)
    # a list of command lines goes into a shell
    terminal = Terminal(on_standard_error=options.list)
    terminal.say(f"Reading {options.sweep}")
    from cxr_jax.config.shipped import find_config
    from cxr_jax.sweeps.runs import chosen, sweep_runs
    from cxr_jax.sweeps.sweep import read_sweep
    from cxr_jax.sweeps.training import require_trainable_where_left, train_all

    sweep, folder = read_sweep(find_config(options.sweep, sweep=True), terminal.say), Path(options.out)
    _check_folder(folder, must_exist=options.table)
    runs = sweep_runs(sweep, folder)
    wanted = chosen(runs, sweep, options.only, options.seeds)
    if options.table:
        _write_tables(terminal, sweep, runs, folder)
        return
    _begin(sweep, folder)
    if options.list:
        _list(wanted)
        return
    variants = {run.variant for run in wanted if not run.finished}
    require_trainable_where_left(terminal, wanted, f"{len(variants)} variants")
    failed = train_all(terminal, wanted, folder, options.jobs, as_typed("cxr-jax", "sweep", *arguments))
    _write_tables(terminal, sweep, runs, folder)
    if failed:
        for ended in failed:
            Terminal(on_standard_error=True).say(f"{ended.job.name} failed: {ended.sentence} (log: {ended.job.log})")
        raise UserError(f"{len(failed)} of {len(wanted)} runs failed, as told above; the same command tries them again")


def _check(options: Options) -> None:
    """Raises UserError for options that say too little or contradict each other."""
    if not options.sweep:
        raise UserError("name a sweep first: cxr-jax sweep SWEEP.toml --out FOLDER", EXIT_USAGE)
    if not options.out:
        raise UserError(f"say where the runs go: cxr-jax sweep {options.sweep} --out FOLDER", EXIT_USAGE)
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}, but must be 1 or more", EXIT_USAGE)
    if options.list and options.table:
        raise UserError("--list and --table ask for different things: choose one", EXIT_USAGE)


def _check_folder(folder: Path, *, must_exist: bool) -> None:
    """Raises UserError if the folder holds something else than a sweep."""
    from cxr_jax.runs.files import is_begun
    from cxr_jax.sweeps.runs import SUMMARY_FILE

    if not is_begun(folder, "sweep", SUMMARY_FILE) and must_exist:
        raise UserError(f"there is no sweep in {folder}: leave --table out to begin one")


def _begin(sweep: Sweep, folder: Path) -> None:
    """Marks the folder as that of a sweep, from before its first run."""
    from cxr_jax.runs.files import write_json
    from cxr_jax.sweeps.runs import SUMMARY_FILE

    if not (folder / SUMMARY_FILE).is_file():
        write_json(folder / SUMMARY_FILE, {"sweep": sweep.path.name, "variants": []})
    for name in sweep.same_as_base:
        Terminal(on_standard_error=True).say(f"{name} is the base itself, which is trained once")


def _list(runs: Sequence[SweepRun]) -> None:
    """Prints the command line of every run that is left, with paths that hold in any folder."""
    from cxr_jax.sweeps.training import command_of

    for run in runs:
        if not run.finished:
            run.write_config_file()
            print(shlex.join(command_of(run)))


def _write_tables(terminal: Terminal, sweep: Sweep, runs: Sequence[SweepRun], folder: Path) -> None:
    """Writes the tables of every finished run in the folder, and prints them."""
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.sweeps.summary import summarise
    from cxr_jax.sweeps.table import notes, terminal_table, write_tables

    summary = summarise(sweep, runs, folder)
    paths = write_tables(summary, folder)
    terminal.show(terminal_table(summary))
    for note in notes(summary):
        terminal.say(note)
    for path in paths:
        terminal.say(f"Written: {path}")
    monitor, best = summary.monitor, summary.variants[0]
    if (figure := best.figures.get(monitor)) is not None:
        terminal.say(f"Best on validation by {monitor}: {best.name}, {figure.mean:.4f} over {len(best.seeds)} seeds")
        ended = RunFolder(folder / best.name / f"seed{best.seeds[0]}")
        terminal.say(f"Next: {as_typed('cxr-jax', 'evaluate', ended.path)}")
