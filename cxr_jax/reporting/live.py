"""Training as it is watched: a bar in the terminal, or lines in a log, and the event files of TensorBoard."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import math
import time
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from cxr_jax.runs.folder import RunFolder
from cxr_jax.terminal import Terminal

_LONG = 3.0
"""Seconds without a step after which that is said."""


class TerminalObserver:
    """Shows a bar with loss, images per second and time left, and a line for every validation.

    Where the output is no terminal, the bar is a line every `terminal.LOG_SECONDS`.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._shown = contextlib.ExitStack()
        self._bar: Progress | None = None
        self._loss = self._speed = math.nan
        self._awaited = "compiling"  # what the next line about the network comes after; empty: a step

    def on_start(self, plan: Any, progress: Any) -> None:
        """Opens the bar for the steps of `plan`, at `progress`, after a line for each phase."""
        say = self._terminal.say
        for phase in plan.phases:
            say(
                f"Phase {phase.config.name}: {phase.iterations} steps, {phase.trained_size:,} parameters trained, "
                f"{phase.frozen_size:,} frozen"
            )
        for sentence in plan.activations.sentences:
            say(sentence)
        if progress.step:
            say(f"Going on after step {progress.step}")
        iterations = [phase.iterations for phase in plan.phases]
        self._names, self._phase = [phase.config.name for phase in plan.phases], progress.phase
        self._total = sum(iterations)
        self._begun_at = self._done = sum(iterations[: progress.phase]) + progress.iteration
        # each phase has a step of its own, which is compiled when it is first taken
        self._borders = [0, *itertools.accumulate(iterations)]
        self._validated_every = plan.config.validation.every_iterations or plan.batches_per_epoch
        self._begun = self._since = time.monotonic()
        if not self._terminal.interactive:
            self._shown.enter_context(self._terminal.telling(self._line))
            return
        self._bar = Progress(
            TextColumn("Training"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
            _Doing(self),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._terminal.console,
        )
        self._task = self._bar.add_task("", total=self._total, completed=self._done)
        self._shown.enter_context(self._bar)

    def on_features(self, done: int, total: int) -> None:
        """Shows of how many images the features are computed; the steps of the phase take these."""
        self._since = time.monotonic()
        self._awaited = f"features of {done:,} of {total:,} images" if done < total else "compiling"

    def on_train(self, line: dict[str, Any]) -> None:
        """Moves the bar one step on."""
        while line["phase"] != self._names[self._phase]:  # patience may have ended one before its last step
            self._phase += 1
            self._done, self._awaited = self._borders[self._phase], "compiling"
        speed = line["images_per_second"]
        self._speed = speed if math.isnan(self._speed) else 0.8 * self._speed + 0.2 * speed
        self._loss, self._done, self._since = line["loss"], self._done + 1, time.monotonic()
        if self._awaited == "compiling":
            # the first step of a phase says nothing of how long others take
            self._begun_at, self._begun = self._done, self._since
        in_phase = self._done - max(border for border in self._borders if border < self._done)
        validates = in_phase % self._validated_every == 0 or self._done in self._borders
        self._awaited = "validating" if validates else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def on_validation(self, line: dict[str, Any]) -> None:
        """Prints the figures of a validation."""
        self._since = time.monotonic()
        self._awaited = "compiling" if self._done in self._borders and self._done < self._total else ""
        best = "  (best so far)" if line["best"] else ""
        self._terminal.say(
            f"step {line['step']:>5}  epoch {line['epoch']:.2f}  validation: {validation_figures(line)}{best}"
        )

    def on_note(self, sentence: str) -> None:
        """Prints a sentence."""
        self._terminal.say(sentence, style="yellow")

    def close(self) -> None:
        """Closes the bar."""
        self._shown.close()

    def doing(self) -> str:
        """Returns loss and speed of the last steps, or what is waited for."""
        waited = time.monotonic() - self._since
        if self._awaited:
            return f"{self._awaited}, {waited:.0f} s"
        figures = "" if math.isnan(self._loss) else f"loss {self._loss:.3f}, {self._speed:.1f} images/s"
        return f"{figures}, no step for {waited:.0f} s" if waited > _LONG else figures

    def _line(self) -> str:
        """Returns what stands in a log in place of the bar."""
        steps = self._done - self._begun_at
        seconds = (self._total - self._done) * (time.monotonic() - self._begun) / steps if steps else math.nan
        left = "" if math.isnan(seconds) else f", {datetime.timedelta(seconds=round(seconds))} left"
        return f"step {self._done:,} of {self._total:,}, {self.doing()}{left}"


class _Doing(ProgressColumn):
    """What an observer says of its training, at this moment."""

    def __init__(self, observer: TerminalObserver) -> None:
        super().__init__()
        self._observer = observer

    def render(self, task: Task) -> Text:
        """Returns the figures of the last steps."""
        del task
        return Text(self._observer.doing(), style="cyan")


def validation_figures(line: dict[str, Any]) -> str:
    """Returns those figures of a validation that there are in a line of metrics.jsonl, or of the loop, as text."""
    shown = {"loss": ("loss", ".4f"), "accuracy": ("accuracy", ".1%"), "roc_auc": ("AUC", ".4f")}
    values = {name: line[name] for name in shown if name in line}
    # metrics.jsonl has no word for NaN
    undefined = {name for name, value in values.items() if value is None or math.isnan(value)}
    return ", ".join(
        f"{shown[name][0]} {'–' if name in undefined else format(value, shown[name][1])}"
        for name, value in values.items()
    )


class TensorBoardObserver:
    """Writes the figures of steps and validations as TensorBoard events."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._writer: Any = None

    def on_start(self, plan: Any, progress: Any) -> None:
        """Opens the event file; events that a resumed run will write again are hidden."""
        del plan
        from tensorboardX import SummaryWriter

        purge = progress.step + 1 if progress.step else None
        self._writer = SummaryWriter(str(self._run.tensorboard), purge_step=purge)

    def on_features(self, done: int, total: int) -> None:
        """Features are no figures of the run."""

    def on_train(self, line: dict[str, Any]) -> None:
        """Writes the figures of a step."""
        for name in ("loss", "accuracy", "learning_rate", "images_per_second"):
            self._writer.add_scalar(f"train/{name}", line[name], line["step"])

    def on_validation(self, line: dict[str, Any]) -> None:
        """Writes the figures of a validation."""
        for name in ("loss", "accuracy", "roc_auc"):
            if math.isnan(line[name]):
                continue
            self._writer.add_scalar(f"validation/{name}", line[name], line["step"])

    def on_note(self, sentence: str) -> None:
        """Notes are for the terminal."""

    def close(self) -> None:
        """Finishes the event file."""
        if self._writer is not None:
            self._writer.close()


class Observers:
    """Several observers told as one."""

    def __init__(self, *observers: TerminalObserver | TensorBoardObserver) -> None:
        self._observers = observers

    def on_start(self, plan: Any, progress: Any) -> None:
        """Tells all that training begins."""
        for observer in self._observers:
            observer.on_start(plan, progress)

    def on_features(self, done: int, total: int) -> None:
        """Tells all how many images have features."""
        for observer in self._observers:
            observer.on_features(done, total)

    def on_train(self, line: dict[str, Any]) -> None:
        """Tells all of a step."""
        for observer in self._observers:
            observer.on_train(line)

    def on_validation(self, line: dict[str, Any]) -> None:
        """Tells all of a validation."""
        for observer in self._observers:
            observer.on_validation(line)

    def on_note(self, sentence: str) -> None:
        """Tells all a sentence."""
        for observer in self._observers:
            observer.on_note(sentence)

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, *_: object) -> None:
        for observer in self._observers:
            observer.close()
