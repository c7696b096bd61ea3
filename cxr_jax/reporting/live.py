"""Training as it is watched: a progress bar in the terminal and the event files of TensorBoard."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cxr_jax.data.progress import Track
from cxr_jax.runs.folder import RunFolder


def track_in_terminal(console: Console) -> Track:
    """What the data room tells its progress to: a bar in the terminal."""

    @contextlib.contextmanager
    def track(description: str, total: int) -> Iterator[Callable[[int], None]]:
        with Progress(
            TextColumn(description), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        ) as bar:
            task = bar.add_task("", total=total)
            yield lambda steps: bar.advance(task, steps)

    return track


class _Figures(ProgressColumn):
    """Loss and speed of the last steps."""

    def render(self, task: Task) -> Text:
        """The figures of `task`, once there are some."""
        loss, speed = task.fields.get("loss"), task.fields.get("speed")
        return Text("" if loss is None else f"loss {loss:.3f}  {speed:.1f} images/s", style="cyan")


class TerminalObserver:
    """Shows a bar with loss, images per second and time left, and a line for every validation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._speed: float | None = None

    def on_start(self, plan: Any, progress: Any) -> None:
        """Open the bar for the steps of `plan`, at `progress`, after a line for each phase."""
        for phase in plan.phases:
            self._console.print(
                f"Phase {phase.config.name}: {phase.iterations} steps, {phase.trained_size:,} parameters trained, "
                f"{phase.frozen_size:,} frozen",
                soft_wrap=True,
            )
        if plan.precision != "float32":
            kernels = " by native kernels" if plan.native_kernels else ""
            self._console.print(f"Activations in {plan.precision}{kernels}, all else in float32")
        for note in plan.notes:
            self._console.print(note, soft_wrap=True, markup=False)
        if progress.step:
            self._console.print(f"Going on after step {progress.step}")
        self._bar = Progress(
            TextColumn("Training"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
            _Figures(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        iterations = [phase.iterations for phase in plan.phases]
        done = sum(iterations[: progress.phase]) + progress.iteration
        self._task = self._bar.add_task("", total=sum(iterations), completed=done)
        self._bar.start()

    def on_train(self, line: dict[str, Any]) -> None:
        """Move the bar one step on."""
        speed = line["images_per_second"]
        self._speed = speed if self._speed is None else 0.8 * self._speed + 0.2 * speed
        self._bar.update(self._task, advance=1, loss=line["loss"], speed=self._speed)

    def on_validation(self, line: dict[str, Any]) -> None:
        """Print the figures of a validation."""
        best = "  (best so far)" if line["best"] else ""
        auc = "–" if math.isnan(line["roc_auc"]) else f"{line['roc_auc']:.4f}"
        self._console.print(
            f"step {line['step']:>5}  epoch {line['epoch']:.2f}  validation: loss {line['loss']:.4f}, "
            f"accuracy {line['accuracy']:.1%}, AUC {auc}{best}",
            soft_wrap=True,
        )

    def on_note(self, sentence: str) -> None:
        """Print a sentence."""
        self._console.print(sentence, style="yellow", soft_wrap=True)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()


class TensorBoardObserver:
    """Writes the figures of steps and validations as TensorBoard events."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._writer: Any = None

    def on_start(self, plan: Any, progress: Any) -> None:
        """Open the event file; events that a resumed run will write again are hidden."""
        del plan
        from tensorboardX import SummaryWriter

        purge = progress.step + 1 if progress.step else None
        self._writer = SummaryWriter(str(self._run.tensorboard), purge_step=purge)

    def on_train(self, line: dict[str, Any]) -> None:
        """Write the figures of a step."""
        for name in ("loss", "accuracy", "learning_rate", "images_per_second"):
            self._writer.add_scalar(f"train/{name}", line[name], line["step"])

    def on_validation(self, line: dict[str, Any]) -> None:
        """Write the figures of a validation."""
        for name in ("loss", "accuracy", "roc_auc"):
            if math.isnan(line[name]):
                continue
            self._writer.add_scalar(f"validation/{name}", line[name], line["step"])

    def on_note(self, sentence: str) -> None:
        """Notes are for the terminal."""

    def close(self) -> None:
        """Finish the event file."""
        if self._writer is not None:
            self._writer.close()


class Observers:
    """Several observers told as one."""

    def __init__(self, *observers: TerminalObserver | TensorBoardObserver) -> None:
        self._observers = observers

    def on_start(self, plan: Any, progress: Any) -> None:
        """Tell all that training begins."""
        for observer in self._observers:
            observer.on_start(plan, progress)

    def on_train(self, line: dict[str, Any]) -> None:
        """Tell all of a step."""
        for observer in self._observers:
            observer.on_train(line)

    def on_validation(self, line: dict[str, Any]) -> None:
        """Tell all of a validation."""
        for observer in self._observers:
            observer.on_validation(line)

    def on_note(self, sentence: str) -> None:
        """Tell all a sentence."""
        for observer in self._observers:
            observer.on_note(sentence)

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, *_: object) -> None:
        for observer in self._observers:
            observer.close()
