"""How far a run has come: what a checkpoint stores beside the arrays, and who is told while it goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

EndReason = Literal["finished", "patience", "interrupted", "terminated"]


@dataclass(frozen=True)
class Progress:
    """The position of a run between two steps."""

    phase: int = 0  # index of the phase under way; the number of phases once all are done
    iteration: int = 0  # steps done in that phase
    step: int = 0  # steps done in all
    seconds: float = 0.0  # by the clock since training began, compilation included, over all resumptions
    best_value: float | None = None  # of the monitored figure, over the whole run
    best_step: int | None = None
    phase_best: float | None = None  # of the monitored figure, in this phase: what patience compares with
    stale_validations: int = 0  # validations since that
    validation_due: bool = False  # the validation that belongs to this step is not done yet
    reason: EndReason = "finished"  # why the phase before this one ended

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Progress:
        """The progress that `as_json` described; what another version stored besides is passed over."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in known})


@dataclass(frozen=True)
class Plan:
    """What lies ahead, for a progress bar."""

    phase_names: tuple[str, ...]
    phase_iterations: tuple[int, ...]
    trainable: tuple[int, ...]  # parameters that each phase trains
    frozen: tuple[int, ...]  # parameters that it leaves alone
    precision: str = "float32"  # of the activations
    native_kernels: bool = False  # compute them on a CPU
    notes: tuple[str, ...] = ()  # what a person should know of it


class Observer(Protocol):
    """Who is told of a run's progress."""

    def on_start(self, plan: Plan, progress: Progress) -> None:
        """Training begins, or goes on from `progress`."""

    def on_train(self, line: dict[str, Any]) -> None:
        """A step was done; `line` is what metrics.jsonl says of it."""

    def on_validation(self, line: dict[str, Any]) -> None:
        """The network was validated; `line` is what metrics.jsonl says of it."""

    def on_note(self, sentence: str) -> None:
        """Something that a person should know."""


def is_better(monitor: str, value: float, best: float | None) -> bool:
    """True if `value` of the monitored figure improves on `best`; a loss should fall, the others rise."""
    if value != value:
        return False
    return best is None or (value < best if monitor == "loss" else value > best)


def after_validation(progress: Progress, monitor: str, value: float) -> tuple[Progress, bool]:
    """`progress` after a validation that gave `value`, and whether that is the best of the run."""
    best = is_better(monitor, value, progress.best_value)
    improved = is_better(monitor, value, progress.phase_best)
    return (
        dataclasses.replace(
            progress,
            best_value=value if best else progress.best_value,
            best_step=progress.step if best else progress.best_step,
            phase_best=value if improved else progress.phase_best,
            stale_validations=0 if improved else progress.stale_validations + 1,
            validation_due=False,
        ),
        best,
    )
