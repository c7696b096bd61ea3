"""Contests: our case and its opponents take turns, so that whatever else the machine does befalls both alike."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr_jax.bench.cases import Case, Contest
from cxr_jax.bench.children import Child, start_case
from cxr_jax.errors import UserError


@dataclass(frozen=True)
class Effort:
    """How long everything is measured."""

    warm_up: int  # steps before the first round
    rounds: int  # turns of each process
    steps: int  # fewest counted steps of a round
    seconds: float  # shortest time of a round


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
        if len(self.seconds) < 2:
            return (self.images_per_second, self.images_per_second)
        fast, _, slow = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (self.case.batch_size / slow, self.case.batch_size / fast)

    def rate_of(self, fact: str) -> float | None:
        """A count per step, such as `flops`, per second of the median step; None where it is not known."""
        count = self.facts.get(fact)
        return None if count is None else count / statistics.median(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as an opponent we were."""

    case: Case
    opponent: Case
    of_rounds: tuple[float, ...]  # the opponent's median step over ours, for each pair of rounds
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


Start = Callable[[Case, int], Child]
Tell = Callable[[str], None]


def run_contest(
    contest: Contest, effort: Effort, tell: Tell, *, trace: Path | None = None, start: Start = start_case
) -> Outcome:
    """Measure a contest: our process lives through it, and every opponent takes turns with it for as long.

    `tell` is told what is going on. With `trace`, profiler traces of our programs are left in folders there once all
    is measured. A case that fails is a measurement with an error; if it is ours, nothing else is measured.
    """
    ours = Measurement(contest.case)
    outcome = Outcome([ours], [])
    with contextlib.ExitStack() as stack, _telling(ours):
        tell(f"compiling {contest.case.task}: {contest.case.way}")
        child = stack.enter_context(start(contest.case, effort.warm_up))
        ours.facts = child.facts
        rounds: dict[Case, tuple[float, ...]] = {}
        for opponent in contest.opponents:
            measurement = Measurement(opponent)
            outcome.measurements.append(measurement)
            with _telling(measurement):
                rounds[opponent] = _duel(child, ours, measurement, effort, tell, trace, start)
        if not ours.seconds:
            # no opponent, or none that came as far as its first turn
            tell(f"measuring {contest.case.task}: {contest.case.way}")
            for _ in range(effort.rounds):
                ours.seconds += _round(child, effort)
        _finish(child, ours, trace)
        for measurement in outcome.measurements[1:]:
            if not measurement.error:
                memory = _memory_ratio(ours, measurement)
                outcome.ratios.append(Ratio(contest.case, measurement.case, rounds[measurement.case], memory))
    return outcome


def _duel(
    child: Child,
    ours: Measurement,
    theirs: Measurement,
    effort: Effort,
    tell: Tell,
    trace: Path | None,
    start: Start,
) -> tuple[float, ...]:
    """Let both take turns, each first in every other round; returns the ratio of each pair of rounds."""
    tell(f"compiling {theirs.case.task}: {theirs.case.way}")
    ratios = []
    with start(theirs.case, effort.warm_up) as opponent:
        theirs.facts = opponent.facts
        tell(f"measuring {ours.case.task}: {ours.case.way} | {theirs.case.way}")
        for number in range(effort.rounds):
            if number % 2:
                their_seconds, our_seconds = _round(opponent, effort), _round(child, effort)
            else:
                our_seconds, their_seconds = _round(child, effort), _round(opponent, effort)
            ours.seconds += our_seconds
            theirs.seconds += their_seconds
            ratios.append(statistics.median(their_seconds) / statistics.median(our_seconds))
        _finish(opponent, theirs, None if theirs.case.implementation == "timm" else trace)
    return tuple(ratios)


def _round(child: Child, effort: Effort) -> list[float]:
    return child.ask({"steps": effort.steps, "seconds": effort.seconds})["seconds"]


def _finish(child: Child, measurement: Measurement, trace: Path | None) -> None:
    if trace is not None:
        child.ask({"trace": str(trace / _folder_of(measurement.case))})
    last = child.finish()
    measurement.peak_memory_bytes = last["peak_memory_bytes"]
    measurement.device_peak_bytes = last["device_peak_bytes"]


def _folder_of(case: Case) -> str:
    """A folder name that says what was traced."""
    words: Sequence[object] = (
        case.model,
        f"{case.image_size}px",
        f"batch{case.batch_size}",
        case.work,
        case.implementation,
        case.backend,
        f"threads{case.threads}",
    )
    return "-".join(map(str, words))


def _memory_ratio(ours: Measurement, theirs: Measurement) -> float | None:
    """Peaks of the device where both are known, otherwise of the processes."""
    for name in ("device_peak_bytes", "peak_memory_bytes"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine and other:
            return mine / other
    return None


@contextlib.contextmanager
def _telling(measurement: Measurement) -> Any:
    """Keep a mistake of the child in `measurement`, so that the other cases are measured all the same."""
    try:
        yield
    except UserError as error:
        measurement.error = str(error)
