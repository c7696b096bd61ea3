"""What a run writes while it trains: its metrics, the state to resume from, and the network that validated best."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from cxr_jax.checkpoints import Checkpoint, CheckpointWriter, read_newest, saved_steps
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.training.processes import NoWriter, ProcessGroup
from cxr_jax.training.progress import Progress
from cxr_jax.training.state import TrainState, network_arrays, state_arrays

LAST, BEST = "last", "best"
"""Folders of checkpoints: the whole state to resume from, and the network that validated best."""


def newest_state(checkpoints: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Returns what a run goes on from; None for one that was killed before its first save, which begins again."""
    return read_newest(checkpoints / LAST, warn) if saved_steps(checkpoints / LAST) else None


def has_state(checkpoints: Path, group: ProcessGroup) -> bool:
    """Returns whether a run has a state to go on from; the first process of `group` looks, and tells the others."""
    return group.exchange(group.writes and bool(saved_steps(checkpoints / LAST)))[0]


class RunWriter:
    """Writes the metrics and checkpoints of a run; in a process that leaves writing to another, nothing."""

    def __init__(self, run: RunFolder, progress: Progress, group: ProcessGroup) -> None:
        """Prepares to go on from `progress`."""
        self._run, self._group = run, group
        self.saved = progress
        """The progress of the state that can be resumed, or that a run begins with."""

    def __enter__(self) -> RunWriter:
        with contextlib.ExitStack() as stack:
            if self._group.writes:
                checkpoints, progress = self._run.checkpoints, self.saved
                log = MetricsLog(self._run.metrics, rewind_to=progress.step, validation_due=progress.validation_due)
                self._log = stack.enter_context(log)
                self._last = stack.enter_context(CheckpointWriter(checkpoints / LAST, keep=2))
                # a killed run may have saved a better network than the last state knows of: the one before is needed
                best = CheckpointWriter(checkpoints / BEST, keep=2, rewind_to=progress.step)
                self._best = stack.enter_context(best)
            else:
                self._log = self._last = self._best = NoWriter()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def log(self, kind: str, **values: Any) -> None:
        """Appends a line to metrics.jsonl."""
        self._log.write(kind, **values)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Saves all that is needed to go on from `progress`, where `state` is; returns before it is written."""
        # a kill must not leave a state on the disk without the best network that it names: it is not saved again
        self._best.wait()
        self._last.save(progress.step, state_arrays(state), progress.as_json())
        self.saved = progress

    def save_best(self, state: TrainState, progress: Progress, monitor: str) -> None:
        """Saves the network of `state` as the best so far by the figure `monitor`; returns before it is written."""
        # only the two newest networks are kept: the state that a kill leaves must find its own among them
        self._last.wait()
        self._best.save(progress.step, network_arrays(state), {"monitor": monitor, "value": progress.best_value})

    def wait(self) -> None:
        """Returns when the state that was saved last is on the disk."""
        self._last.wait()
