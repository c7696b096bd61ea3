"""Contests: our case and its opponents take turns, so that whatever else the machine does befalls both alike."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cxr_jax.bench.cases import Case, Contest, Effort
from cxr_jax.bench.children import Child, start_case
from cxr_jax.errors import UserError
from cxr_jax.terminal import Terminal


@dataclass
class Measurement:
    """What is known of a case; `error` says why nothing is."""

    case: Case
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)  # of each counted step
    of_rounds: list[float] = field(default_factory=list)  # of an opponent: its median step over ours, by round
    peak_memory_bytes: int | None = None  # largest resident set of the process
    device_peak_bytes: int | None = None
    error: str = ""

    @property
    def images_per_second(self) -> float:
        """By the median step."""
        return self.case.batch_size / statistics.median(self.seconds)

    @property
    def middle_half(self) -> tuple[float, float]:
        """Images a second of the slower and the faster quartile of the steps."""
        fast, slow = middle_half(self.seconds)
        return (self.case.batch_size / slow, self.case.batch_size / fast)


def middle_half(values: list[float]) -> tuple[float, float]:
    """Returns the lower and the upper quartile of `values`."""
    low, high = np.quantile(values, (0.25, 0.75))
    return (float(low), float(high))


def run_contest(
    contest: Contest,
    effort: Effort,
    terminal: Terminal,
    keep: Callable[[Sequence[Measurement]], None] = lambda known: None,
) -> list[Measurement]:
    """Returns the measurements of a contest, ours first.

    Our process lives through it, and every opponent takes turns with it for as long. `terminal` shows every round. A
    case that fails, or that takes longer than `effort.limit` for a turn, is a measurement with an error; if it is ours,
    nothing else is measured. After every opponent `keep` is given what is known by then.
    """
    ours, opponents = Measurement(contest.case), list[Measurement]()
    terminal.say(contest.case.task)
    try:
        with _measured(ours, effort, terminal) as child:
            for case in contest.opponents:
                theirs = Measurement(case)
                try:
                    with _measured(theirs, effort, terminal) as opponent:
                        theirs.of_rounds = _take_turns([(child, ours), (opponent, theirs)], effort, terminal)
                except UserError as error:
                    if child.failed:
                        raise
                    _pass_over(theirs, error, terminal)
                opponents.append(theirs)
                if ours.seconds:
                    keep([ours, *opponents])
            if not ours.seconds:
                # no opponent, or none that came as far as its first turn
                _take_turns([(child, ours)], effort, terminal)
    except UserError as error:
        _pass_over(ours, error, terminal)
    return [ours, *opponents]


@contextlib.contextmanager
def _measured(measurement: Measurement, effort: Effort, terminal: Terminal) -> Iterator[Child]:
    """Starts the process of a case, and asks it in the end for what it needed."""
    with contextlib.ExitStack() as stack:
        with terminal.waiting(f"  starting and compiling {measurement.case.way}"):
            child = stack.enter_context(start_case(measurement.case, effort))
        measurement.facts = child.facts
        yield child
        last = child.finish(effort.limit)
        measurement.peak_memory_bytes = last["peak_memory_bytes"]
        measurement.device_peak_bytes = last["device_peak_bytes"]


def _take_turns(entries: list[tuple[Child, Measurement]], effort: Effort, terminal: Terminal) -> list[float]:
    """Lets all take turns, each first in every other round; returns the last one's time over the first one's, by round.

    Every round prints a line.
    """
    turn = {"steps": effort.steps, "seconds": effort.seconds, "clock": effort.clock}
    ratios = []
    with terminal.waiting(f"  taking turns: {' and '.join(measurement.case.way for _, measurement in entries)}"):
        for number in range(effort.rounds):
            medians = {}
            for child, measurement in entries[:: -1 if number % 2 else 1]:
                taken = child.ask(turn, effort.limit)["seconds"]
                measurement.seconds += taken
                medians[child] = statistics.median(taken)
            speeds = [f"{entry.case.batch_size / medians[child]:,.1f} images/s" for child, entry in entries]
            ratios.append(medians[entries[-1][0]] / medians[entries[0][0]])
            compared = f", the other {speeds[1]}: {ratios[-1]:.2f} times as fast" if len(speeds) > 1 else ""
            terminal.say(f"  round {number + 1} of {effort.rounds}: {speeds[0]}{compared}")
    return ratios


def _pass_over(measurement: Measurement, error: UserError, terminal: Terminal) -> None:
    measurement.error = str(error)
    terminal.say(f"  {measurement.case.way}: {error}")
