"""Contests: our case and its opponents take turns, so that whatever else the machine does befalls both alike."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

    def rate_of(self, fact: str) -> float | None:
        """Returns a count per step, such as `flops`, per second of the median step; None where it is not known."""
        count = self.facts.get(fact)
        return None if count is None else count / statistics.median(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as an opponent we were."""

    case: Case
    opponent: Case
    of_rounds: tuple[float, ...]  # the opponent's median step over ours, for each pair of turns
    memory: float | None  # our peak memory over the opponent's

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.of_rounds)


@dataclass(frozen=True)
class Outcome:
    """All that a contest gave."""

    measurements: list[Measurement]  # ours first
    ratios: list[Ratio]


def middle_half(values: list[float] | tuple[float, ...]) -> tuple[float, float]:
    """Returns the lower and the upper quartile of `values`."""
    if len(values) < 2:
        return (values[0], values[0])
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (low, high)


def run_contest(contest: Contest, effort: Effort, terminal: Terminal, trace: Path | None = None) -> Outcome:
    """Measures a contest: our process lives through it, and every opponent takes turns with it for as long.

    `terminal` shows every round. With `trace`, profiler traces of our programs are left in folders there once all is
    measured. A case that fails, or that takes longer than `effort.limit` for a turn, is a measurement with an error;
    if it is ours, nothing else is measured.
    """
    ours, opponents = Measurement(contest.case), list[Measurement]()
    of_rounds: dict[Case, tuple[float, ...]] = {}
    terminal.say(contest.case.task)
    try:
        with _started(ours, effort, terminal) as child:
            for theirs in map(Measurement, contest.opponents):
                opponents.append(theirs)
                try:
                    of_rounds[theirs.case] = _duel(child, ours, theirs, effort, terminal, trace)
                except UserError as error:
                    if child.failed:
                        opponents.pop()
                        raise
                    _pass_over(theirs, error, terminal)
            if not ours.seconds:
                # no opponent, or none that came as far as its first turn
                with terminal.waiting("  taking turns alone"):
                    for number in range(effort.rounds):
                        ours.seconds += (taken := _turn(child, effort))
                        terminal.say(f"  round {number + 1} of {effort.rounds}: {_speed(ours, taken)}")
            _finish(child, ours, effort, trace)
    except UserError as error:
        _pass_over(ours, error, terminal)
        return Outcome([ours, *opponents], [])
    measured = [entry for entry in opponents if not entry.error]
    ratios = [Ratio(ours.case, entry.case, of_rounds[entry.case], _memory(ours, entry)) for entry in measured]
    return Outcome([ours, *opponents], ratios)


def _duel(
    child: Child, ours: Measurement, theirs: Measurement, effort: Effort, terminal: Terminal, trace: Path | None
) -> tuple[float, ...]:
    """Lets both take turns, each first in every other round; returns the ratio of each round."""
    ratios: list[float] = []
    with _started(theirs, effort, terminal) as opponent, terminal.waiting(f"  taking turns with {theirs.case.way}"):
        for number in range(effort.rounds):
            first, second = (opponent, child) if number % 2 else (child, opponent)
            taken = {first: _turn(first, effort)}
            taken[second] = _turn(second, effort)
            ours.seconds += taken[child]
            theirs.seconds += taken[opponent]
            ratios.append(statistics.median(taken[opponent]) / statistics.median(taken[child]))
            terminal.say(
                f"  round {number + 1} of {effort.rounds}: {_speed(ours, taken[child])}, the other "
                f"{_speed(theirs, taken[opponent])}: {ratios[-1]:.2f} times as fast"
            )
        _finish(opponent, theirs, effort, None if theirs.case.implementation == "timm" else trace)
    return tuple(ratios)


def _started(measurement: Measurement, effort: Effort, terminal: Terminal) -> Child:
    with terminal.waiting(f"  starting and compiling {measurement.case.way}"):
        child = start_case(measurement.case, effort)
    measurement.facts = child.facts
    return child


def _turn(child: Child, effort: Effort) -> list[float]:
    return child.ask({"steps": effort.steps, "seconds": effort.seconds}, effort.limit)["seconds"]


def _speed(measurement: Measurement, taken: list[float]) -> str:
    return f"{measurement.case.batch_size / statistics.median(taken):,.1f} images/s"


def _pass_over(measurement: Measurement, error: UserError, terminal: Terminal) -> None:
    measurement.error = str(error)
    terminal.say(f"  {measurement.case.way}: {error}")


def _finish(child: Child, measurement: Measurement, effort: Effort, trace: Path | None) -> None:
    if trace is not None:
        case = measurement.case
        words = (case.model, f"{case.image_size}px", f"batch{case.batch_size}", case.work, case.implementation)
        folder = "-".join((*words, case.backend, case.precision, f"threads{case.threads}"))
        child.ask({"trace": str(trace / folder)}, effort.limit)
    last = child.finish(effort.limit)
    measurement.peak_memory_bytes = last["peak_memory_bytes"]
    measurement.device_peak_bytes = last["device_peak_bytes"]


def _memory(ours: Measurement, theirs: Measurement) -> float | None:
    """Returns our peak over theirs: of the device where both are known, otherwise of the processes."""
    for name in ("device_peak_bytes", "peak_memory_bytes"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine and other:
            return mine / other
    return None
