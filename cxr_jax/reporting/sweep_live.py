"""Trainings side by side as they are watched: a bar for each, by what it has written to its metrics so far."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cxr_jax.config.sweep_runs import SweepRun
from cxr_jax.reporting.live import validation_figures
from cxr_jax.runs.metrics_log import newest_line
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
    with _Bars(terminal, under_way):
        yield


class _Bars(Progress):
    """Bars that look up by themselves how far the runs are, whenever they are drawn."""

    def __init__(self, terminal: Terminal, under_way: Callable[[], Sequence[SweepRun]]) -> None:
        self._under_way = under_way
        self._shown: dict[str, TaskID] = {}
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[doing]}", markup=False),
            TimeElapsedColumn(),
        )
        super().__init__(*columns, console=terminal.console, transient=True, refresh_per_second=2)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the bars of the runs that are under way."""
        runs = {run.name: run for run in self._under_way()}
        for name in self._shown.keys() - runs.keys():
            self.remove_task(self._shown.pop(name))
        for name, run in runs.items():
            done, doing = standing(run)
            if name not in self._shown:
                self._shown[name] = self.add_task(name, total=1.0, doing=doing)
            self.update(self._shown[name], completed=done, doing=doing)
        yield from super().get_renderables()
