"""How far a run has come: what a checkpoint stores beside the arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
        """Returns the fields as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Progress:
        """Returns the progress that `as_json` described; what another version stored besides is passed over."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in known})


def is_better(monitor: str, value: float, best: float | None) -> bool:
    """Returns whether `value` of the monitored figure improves on `best`; a loss should fall, the others rise."""
    if value != value:
        return False
    return best is None or (value < best if monitor == "loss" else value > best)


def after_validation(progress: Progress, monitor: str, value: float) -> tuple[Progress, bool]:
    """Returns `progress` after a validation that gave `value`, and whether that is the best of the run."""
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


def is_exhausted(progress: Progress, patience: int) -> bool:
    """Returns whether `patience` validations, above 0, have passed without improvement in this phase."""
    return 0 < patience <= progress.stale_validations


def is_over(progress: Progress, iterations: int, patience: int) -> bool:
    """Returns whether the phase of `iterations` steps that `progress` stands in has come to its end."""
    return progress.iteration >= iterations or is_exhausted(progress, patience)


def next_phase(progress: Progress, patience: int) -> Progress:
    """Returns `progress` at the end of a phase as it stands before the next one."""
    return dataclasses.replace(
        progress,
        phase=progress.phase + 1,
        iteration=0,
        phase_best=None,
        stale_validations=0,
        reason="patience" if is_exhausted(progress, patience) else "finished",
    )
