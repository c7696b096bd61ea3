"""The runs of a sweep trained side by side, and shown while they come on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, UserError
from cxr_jax.reporting.live import validation_figures
from cxr_jax.runs.locks import held
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.sweeps.live import bars, standing
from cxr_jax.sweeps.runs import SweepRun
from cxr_jax.sweeps.side_by_side import Ended, Job, gpus, places, run_side_by_side
from cxr_jax.terminal import Terminal

TRAIN = (sys.executable, "-m", "cxr_jax", "train")
"""The command line that trains one run, before its arguments."""

PROBE = (*TRAIN[:-1], "probe")
"""The same for a run whose config asks for a probe."""


def command_of(run: SweepRun) -> tuple[str, ...]:
    """Returns the command line that trains a run or fits its probe, or goes on with it."""
    config, out = run.config_file.absolute(), run.run.path.absolute()
    begin = PROBE if run.config.probe.is_asked_for else TRAIN
    return (*begin, str(config), "--out", str(out), *(["--resume"] if run.begun else []))


def require_trainable_where_left(terminal: Terminal, runs: Sequence[SweepRun], what: str) -> None:
    """Raises UserError if training would refuse one of the runs that are not finished; `what` is told as checked."""
    left = [run for run in runs if not run.finished]
    if left:
        with terminal.waiting(f"Loading jax, to check {what}"):
            from cxr_jax.sweeps.checks import require_trainable

        require_trainable(left, terminal)


def train_all(terminal: Terminal, runs: Sequence[SweepRun], folder: Path, jobs: int, again: str) -> list[Ended]:
    """Trains those of `runs` that are not finished, up to `jobs` of them at a time; returns those that failed.

    Raises:
        UserError: a signal stopped them, and how to go on with `again`; or another process works in the folder.
    """
    with held(folder, f"another process is training in {folder}: wait until it has ended"):
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
        with bars(self._terminal, lambda: tuple(self._under_way.values())):
            yield

    def _line(self) -> str:
        """Returns what stands in a log in place of bars."""
        told = [f"{run.name} {standing(run)[1]}" for run in tuple(self._under_way.values())]
        return f"{self._ended} of {len(self._runs)} runs ended; {'; '.join(told)}"

    def jobs(self) -> Iterator[Job]:
        """Yields a job for every run, whose config is written when its turn comes."""
        for name, run in self._runs.items():
            run.write_config_file()
            # a probe takes no steps, and is fitted in less time than it would wait
            program = run.program if gpus(os.environ) and not run.config.probe.is_asked_for else ""
            yield Job(name, command_of(run), run.log, program, run.has_compiled)

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
        reached = "" if self.left(ended) else self._reached(run)
        self._terminal.say(
            f"[{self._ended}/{len(self._runs)}] {ended.job.name} {how}, after {minutes:.1f} min{reached}"
        )

    def _reached(self, run: SweepRun) -> str:
        """Returns what the state that a finished run stands for reached on validation, where it was validated."""
        which = run.config.validation.checkpoint
        lines = read_metrics(run.run.metrics, ("validation",))
        lines = [line for line in lines if which == "last" or line.get("best")]
        return f"; {which} on validation: {validation_figures(lines[-1])}" if lines else ""
