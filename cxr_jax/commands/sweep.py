"""`cxr-jax sweep SWEEP.toml --out FOLDER`: train variants of a config with several seeds, and compare them."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from cxr_jax.config.sweep import Sweep
    from cxr_jax.config.sweep_runs import SweepRun
    from cxr_jax.runs.side_by_side import Ended, Job

SUMMARY = "train variants of a config with several seeds, and compare them on validation"

TRAIN = (sys.executable, "-m", "cxr_jax", "train")
"""The command line that trains one run, before its arguments."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    sweep: Annotated[Positional[str], arg(metavar="SWEEP.toml")] = ""  # base config, seeds, variants, grid; or a name
    out: str = ""  # folder of the sweep; what is finished there is kept, what was interrupted goes on
    jobs: int = 1  # trainings side by side: each has a GPU of its own, or its share of the cores
    seeds: tuple[int, ...] = ()  # only these of the sweep's seeds
    only: tuple[str, ...] = ()  # only these variants; base is the one without changes
    list: FlagCreatePairsOff[bool] = False  # print a command line for each run that is left, and train nothing
    table: FlagCreatePairsOff[bool] = False  # write the tables of what is finished, and train nothing


def main(arguments: list[str]) -> None:
    """Train what the sweep that `arguments` name has left, and write its tables.

    Raises:
        UserError: a mistake in the sweep or the options; trainings failed; or a signal stopped them, with the exit
            code that `cxr-jax train` has for it.
    """
    options = parse(Options, arguments, prog="cxr-jax sweep", description=SUMMARY)
    _check(options)
    from cxr_jax.config.shipped import find_config
    from cxr_jax.config.sweep import read_sweep
    from cxr_jax.config.sweep_runs import chosen, sweep_runs

    sweep, folder = read_sweep(find_config(options.sweep, sweep=True)), Path(options.out)
    _check_folder(folder, must_exist=options.table)
    runs = sweep_runs(sweep, folder)
    wanted = chosen(runs, sweep, options.only, options.seeds)
    if options.table:
        _write_tables(sweep, runs, folder)
        return
    _begin(sweep, folder)
    if options.list:
        _list(wanted)
        return
    _check_needs([run for run in wanted if not run.finished])
    failed = _train(wanted, folder, options.jobs, shlex.join(["cxr-jax", "sweep", *arguments]))
    _write_tables(sweep, runs, folder)
    if failed:
        for ended in failed:
            print(f"{ended.job.name} failed: {ended.sentence} (log: {ended.job.log})", file=sys.stderr)
        raise UserError(f"{len(failed)} of {len(wanted)} runs failed, as told above; the same command tries them again")


def _check(options: Options) -> None:
    """Raise UserError for options that say too little or contradict each other."""
    if not options.sweep:
        raise UserError("name a sweep first: cxr-jax sweep SWEEP.toml --out FOLDER", EXIT_USAGE)
    if not options.out:
        raise UserError(f"say where the runs go: cxr-jax sweep {options.sweep} --out FOLDER", EXIT_USAGE)
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}, but must be 1 or more", EXIT_USAGE)
    if options.list and options.table:
        raise UserError("--list and --table ask for different things: choose one", EXIT_USAGE)


def _check_folder(folder: Path, *, must_exist: bool) -> None:
    """Raise UserError if the folder holds something else than a sweep."""
    from cxr_jax.config.sweep_runs import SUMMARY_FILE
    from cxr_jax.runs.files import writing

    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: choose another place for --out")
        used = folder.is_dir() and any(folder.iterdir())
    if used and not (folder / SUMMARY_FILE).is_file():
        raise UserError(f"{folder} holds something else than a sweep: choose another --out")
    if must_exist and not used:
        raise UserError(f"there is no sweep in {folder}: leave --table out to begin one")


def _check_needs(runs: Sequence[SweepRun]) -> None:
    """Raise UserError, naming the variant, if data, model or weights of a run are not to be found."""
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.models.pretrained import find_weights
    from cxr_jax.models.registry import find_architecture

    needs = {(run.config.data.dataset, run.config.model.name, run.config.model.weights): run for run in reversed(runs)}
    for (dataset, model, weights), run in needs.items():
        try:
            PreparedData.open(dataset)
            find_architecture(model)
            if weights:
                find_weights(weights, model)
        except UserError as error:
            raise UserError(f"variant {run.variant}: {error}") from error


def _begin(sweep: Sweep, folder: Path) -> None:
    """Mark the folder as that of a sweep, from before its first run."""
    from cxr_jax.config.sweep_runs import SUMMARY_FILE
    from cxr_jax.runs.files import write_json

    if not (folder / SUMMARY_FILE).is_file():
        write_json(folder / SUMMARY_FILE, {"sweep": sweep.path.name, "variants": []})
    for name in sweep.same_as_base:
        print(f"{name} is the base itself, which is trained once", file=sys.stderr)


def _list(runs: Sequence[SweepRun]) -> None:
    """Print the command line of every run that is left, with paths that hold in any folder."""
    for run in runs:
        if not run.finished:
            run.write_config_file()
            print(shlex.join(_command(run)))


def _command(run: SweepRun) -> tuple[str, ...]:
    """The command line that trains a run, or goes on with it."""
    config, out = run.config_file.absolute(), run.run.path.absolute()
    return (*TRAIN, str(config), "--out", str(out), *(["--resume"] if run.begun else []))


def _train(runs: Sequence[SweepRun], folder: Path, jobs: int, again: str) -> list[Ended]:
    """Train those of `runs` that are not finished, up to `jobs` of them at a time; returns those that failed.

    Raises:
        UserError: a signal stopped them, and how to go on with `again`; or another process works in the folder.
    """
    from cxr_jax.runs.locks import held
    from cxr_jax.runs.side_by_side import places, run_side_by_side

    with held(folder, f"another process is training the sweep in {folder}: wait until it has ended"):
        left = [run for run in runs if not run.finished]
        print(f"{len(runs)} runs, {len(runs) - len(left)} of them finished already", flush=True)
        progress = _Progress(left)
        ends, stopped = run_side_by_side(
            progress.jobs(), places(jobs), on_start=progress.on_start, on_end=progress.on_end
        )
    if stopped is not None:
        done = sum(run.finished for run in runs)
        raise UserError(
            f"stopped by {signal.Signals(stopped).name} with {done} of {len(runs)} runs finished; the others are saved "
            f"as far as they had come, go on with {again}",
            EXIT_INTERRUPTED if stopped == signal.SIGINT else EXIT_TERMINATED,
        )
    return [ended for ended in ends if progress.left(ended)]


class _Progress:
    """Turns runs into jobs, and prints how they come on."""

    def __init__(self, runs: Sequence[SweepRun]) -> None:
        self._runs = {run.name: run for run in runs}
        self._began: dict[str, float] = {}
        self._ended = 0

    def jobs(self) -> Iterator[Job]:
        """A job for every run, whose config is written when its turn comes."""
        from cxr_jax.runs.side_by_side import Job

        for name, run in self._runs.items():
            run.write_config_file()
            yield Job(name, _command(run), run.log)

    def left(self, ended: Ended) -> bool:
        """True if something of a run is left to train, however its process ended."""
        return not self._runs[ended.job.name].finished

    def on_start(self, job: Job) -> None:
        """Print that a run begins."""
        self._began[job.name] = time.monotonic()
        doing = "goes on" if self._runs[job.name].begun else "begins"
        print(f"{job.name} {doing}; log: {job.log}", flush=True)

    def on_end(self, ended: Ended) -> None:
        """Print how a run ended."""
        self._ended += 1
        minutes = (time.monotonic() - self._began[ended.job.name]) / 60
        how = f"is not finished (exit code {ended.code}): {ended.sentence}" if self.left(ended) else "is finished"
        print(f"[{self._ended}/{len(self._runs)}] {ended.job.name} {how}, after {minutes:.1f} min", flush=True)


def _write_tables(sweep: Sweep, runs: Sequence[SweepRun], folder: Path) -> None:
    """Write the tables of every finished run in the folder, and print them."""
    from rich.console import Console

    from cxr_jax.reporting.sweep_summary import summarise
    from cxr_jax.reporting.sweep_table import notes, terminal_table, write_tables

    summary = summarise(sweep, runs, folder)
    paths = write_tables(summary, folder)
    # A pipe has no width: lines are then as long as their content.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(terminal_table(summary))
    for note in notes(summary):
        console.print(note, highlight=False, markup=False)
    for path in paths:
        console.print(f"Written: {path}", soft_wrap=True, markup=False, highlight=False)
