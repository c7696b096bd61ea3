"""`cxr-jax sweep SWEEP.toml --out FOLDER`: train variants of a config with several seeds, and compare them."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed

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

    sweep: Annotated[str, Positional("SWEEP.toml")] = ""  # base config, seeds, variants, grid; or a name
    out: Annotated[str, Option("FOLDER")] = (
        ""  # of the sweep; what is finished there is kept, what was interrupted goes on
    )
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
    from cxr_jax.config.sweep import read_sweep
    from cxr_jax.config.sweep_runs import chosen, sweep_runs

    sweep, folder = read_sweep(find_config(options.sweep, sweep=True)), Path(options.out)
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
    _check_needs([run for run in wanted if not run.finished])
    failed = _train(terminal, wanted, folder, options.jobs, as_typed("cxr-jax", "sweep", *arguments))
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
    """Raises UserError, naming the variant, if data, model or weights of a run are not to be found."""
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
    """Marks the folder as that of a sweep, from before its first run."""
    from cxr_jax.config.sweep_runs import SUMMARY_FILE
    from cxr_jax.runs.files import write_json

    if not (folder / SUMMARY_FILE).is_file():
        write_json(folder / SUMMARY_FILE, {"sweep": sweep.path.name, "variants": []})
    for name in sweep.same_as_base:
        Terminal(on_standard_error=True).say(f"{name} is the base itself, which is trained once")


def _list(runs: Sequence[SweepRun]) -> None:
    """Prints the command line of every run that is left, with paths that hold in any folder."""
    for run in runs:
        if not run.finished:
            run.write_config_file()
            print(shlex.join(_command(run)))


def _command(run: SweepRun) -> tuple[str, ...]:
    """Returns the command line that trains a run, or goes on with it."""
    config, out = run.config_file.absolute(), run.run.path.absolute()
    return (*TRAIN, str(config), "--out", str(out), *(["--resume"] if run.begun else []))


def _train(terminal: Terminal, runs: Sequence[SweepRun], folder: Path, jobs: int, again: str) -> list[Ended]:
    """Trains those of `runs` that are not finished, up to `jobs` of them at a time; returns those that failed.

    Raises:
        UserError: a signal stopped them, and how to go on with `again`; or another process works in the folder.
    """
    from cxr_jax.runs.locks import held
    from cxr_jax.runs.side_by_side import places, run_side_by_side

    with held(folder, f"another process is training the sweep in {folder}: wait until it has ended"):
        left = [run for run in runs if not run.finished]
        terminal.say(f"{len(runs)} runs, {len(runs) - len(left)} of them finished already")
        progress = _Progress(terminal, left)
        with progress.shown():
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
    """Turns runs into jobs, and shows how they come on."""

    def __init__(self, terminal: Terminal, runs: Sequence[SweepRun]) -> None:
        self._terminal = terminal
        self._runs = {run.name: run for run in runs}
        self._began: dict[str, float] = {}
        self._under_way: dict[str, SweepRun] = {}
        self._ended = 0

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the runs under way while the block runs: a bar for each, or a line at a time in a log."""
        if not self._terminal.interactive:
            with self._terminal.telling(self._line):
                yield
            return
        from cxr_jax.reporting.sweep_live import bars

        with bars(self._terminal, lambda: tuple(self._under_way.values())):
            yield

    def _line(self) -> str:
        """Returns what stands in a log in place of bars."""
        from cxr_jax.reporting.sweep_live import standing

        told = [f"{run.name} {standing(run)[1]}" for run in tuple(self._under_way.values())]
        return f"{self._ended} of {len(self._runs)} runs ended; {'; '.join(told)}"

    def jobs(self) -> Iterator[Job]:
        """Yields a job for every run, whose config is written when its turn comes."""
        from cxr_jax.runs.side_by_side import Job

        for name, run in self._runs.items():
            run.write_config_file()
            yield Job(name, _command(run), run.log)

    def left(self, ended: Ended) -> bool:
        """Returns whether something of a run is left to train, however its process ended."""
        return not self._runs[ended.job.name].finished

    def on_start(self, job: Job) -> None:
        """Prints that a run begins."""
        self._began[job.name] = time.monotonic()
        run = self._under_way[job.name] = self._runs[job.name]
        self._terminal.say(f"{job.name} {'goes on' if run.begun else 'begins'}; log: {job.log}")

    def on_end(self, ended: Ended) -> None:
        """Prints how a run ended."""
        self._ended += 1
        run = self._under_way.pop(ended.job.name)
        minutes = (time.monotonic() - self._began[ended.job.name]) / 60
        how = f"is not finished (exit code {ended.code}): {ended.sentence}" if self.left(ended) else "is finished"
        best = "" if self.left(ended) else self._best(run)
        self._terminal.say(f"[{self._ended}/{len(self._runs)}] {ended.job.name} {how}, after {minutes:.1f} min{best}")

    def _best(self, run: SweepRun) -> str:
        """Returns what a finished run reached on validation, where it was validated."""
        from cxr_jax.reporting.live import validation_figures
        from cxr_jax.runs.metrics_log import read_metrics

        best = [line for line in read_metrics(run.run.metrics, ("validation",)) if line.get("best")]
        return f"; best on validation: {validation_figures(best[-1])}" if best else ""


def _write_tables(terminal: Terminal, sweep: Sweep, runs: Sequence[SweepRun], folder: Path) -> None:
    """Writes the tables of every finished run in the folder, and prints them."""
    from cxr_jax.reporting.sweep_summary import summarise
    from cxr_jax.reporting.sweep_table import notes, terminal_table, write_tables
    from cxr_jax.runs.folder import RunFolder

    summary = summarise(sweep, runs, folder)
    paths = write_tables(summary, folder)
    terminal.show(terminal_table(summary))
    for note in notes(summary):
        terminal.say(note)
    for path in paths:
        terminal.say(f"Written: {path}")
    monitor, best = summary["monitor"], summary["variants"][0]
    if (figure := best["figures"].get(monitor)) is not None:
        terminal.say(
            f"Best on validation by {monitor}: {best['name']}, {figure['mean']:.4f} over {len(best['seeds'])} seeds"
        )
        ended = RunFolder(folder / best["name"] / f"seed{best['seeds'][0]}")
        terminal.say(f"Next: {as_typed('cxr-jax', 'evaluate', ended.path)}")
