"""Trainings side by side as they are watched: a bar for each, by what it has written to its metrics so far."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator, Sequence

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cxr_jax.reporting.live import validation_figures
from cxr_jax.runs.metrics_log import newest_line
from cxr_jax.sweeps.runs import SweepRun
from cxr_jax.terminal import Terminal


def standing(run: SweepRun) -> tuple[float, str]:
    """Returns the share of its epochs that a run has passed, from 0 to 1, and its newest figures as text."""
    line = newest_line(run.run.metrics)
    if line is None or "epoch" not in line:
        return 0.0, "has no step yet"
    epochs = sum(phase.epochs for phase in run.config.resolved_phases())
    validated = line["kind"] == "validation"
    figures = f"validation: {validation_figures(line)}" if validated else f"loss {line.get('loss') or 0:.3f}"
    return line["epoch"] / epochs, f"epoch {line['epoch']:.2f} of {epochs}, {figures}"


@contextlib.contextmanager
def bars(terminal: Terminal, under_way: Callable[[], Sequence[SweepRun]]) -> Iterator[None]:
    """Shows a bar for each of the runs that are under way at the time, while the block runs."""
    began: dict[str, float] = {}

    def drawn() -> Table:
        """Returns a row for each run, with what its metrics file says now."""
        table = Table.grid(padding=(0, 1))
        for run in under_way():
            share, doing = standing(run)
            elapsed = round(time.monotonic() - began.setdefault(run.name, time.monotonic()))
            bar = ProgressBar(total=1.0, completed=share, width=30)
            table.add_row(Text(run.name), bar, Text(doing), Text(str(datetime.timedelta(seconds=elapsed))))
        return table

    with Live(get_renderable=drawn, console=terminal.console, transient=True, refresh_per_second=2):
        yield
