"""The training of a generator as it is watched in a terminal, and the figure of its losses."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cxr_jax.reporting.curves import epoch_means
from cxr_jax.reporting.style import BLUE, ORANGE, WIDTH, new_figure, save, styled
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.terminal import Terminal, as_typed

EPOCHS_WITHOUT_A_CHANCE = 10
"""Epochs in a row in which the discriminator tells every image, after which a person is told."""

TELLS_ALL = 0.995
"""Share of the images of either kind that a discriminator calls rightly which tells as good as all."""


class SynthesisObserver:
    """Shows a bar of the steps, or lines in a log, and a line for every epoch."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._shown = contextlib.ExitStack()
        self._lines: list[dict[str, Any]] = []
        self._without_a_chance = 0  # epochs in a row

    def on_start(self, plan: Any, step: int) -> None:
        """Opens the bar, after what a person should know of the plan."""
        for sentence in plan.activations.sentences:
            self.on_note(sentence)
        if step:
            self._terminal.say(f"Going on after step {step}")
        epochs = plan.config.training.epochs
        self._epochs = epochs
        title = f"Training {epochs} epochs of {plan.batches_per_epoch} steps"
        self._advance = self._shown.enter_context(self._terminal.track(title, plan.steps - step))

    def on_train(self, line: dict[str, Any]) -> None:
        """Moves the bar one step on."""
        self._lines.append(line)
        self._advance(1)

    def on_epoch(self, epoch: int, picture: Path) -> None:
        """Prints the mean losses of an epoch, and where its samples are drawn."""
        told = {
            name: np.mean([line[name] for line in self._lines])
            for name in ("discriminator_loss", "generator_loss", "called_real", "made_called_real")
        }
        self._lines = []
        self._terminal.say(
            f"epoch {epoch} of {self._epochs}: loss of the discriminator {told['discriminator_loss']:.3f}, of the "
            f"generator {told['generator_loss']:.3f}; called real: {told['called_real']:.0%} of real and "
            f"{told['made_called_real']:.0%} of made images; {as_typed(picture)}"
        )
        tells_all = min(told["called_real"], 1 - told["made_called_real"]) > TELLS_ALL
        self._without_a_chance = self._without_a_chance + 1 if tells_all else 0
        if self._without_a_chance == EPOCHS_WITHOUT_A_CHANCE:
            self.on_note(
                f"For {EPOCHS_WITHOUT_A_CHANCE} epochs the discriminator has told every made image from the real ones, "
                "so the generator may learn nothing. Look at the picture above; a smaller training.batch_size, with "
                "synthesis.label_smoothing 0.1, may help"
            )

    def on_note(self, sentence: str) -> None:
        """Prints a sentence."""
        self._terminal.say(sentence, style="yellow")

    def __enter__(self) -> SynthesisObserver:
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()


def draw_losses(run: RunFolder) -> list[Path]:
    """Draws the losses of a generator's training from its metrics; returns the files.

    Raises:
        UserError: there are no metrics, or the figure cannot be written.
    """
    return save(losses_figure(read_metrics(run.metrics, ("train",))), run.figures, "losses")


def losses_figure(lines: list[dict[str, Any]]) -> Figure:
    """Returns the losses of both networks, and what the discriminator calls real, as means of every epoch.

    Args:
        lines: those of training in metrics.jsonl.
    """
    epochs = np.array([line["epoch"] for line in lines])
    with styled():
        figure = new_figure(WIDTH, 6.0)
        panels = figure.subplots(2, 1, sharex=True)
        series = (
            (panels[0], "discriminator_loss", BLUE, "discriminator"),
            (panels[0], "generator_loss", ORANGE, "generator"),
            (panels[1], "called_real", BLUE, "of real images"),
            (panels[1], "made_called_real", ORANGE, "of made images"),
        )
        for axes, name, colour, label in series:
            values = np.array([line[name] for line in lines], np.float64)
            axes.plot(*epoch_means(epochs, values), color=colour, label=label)
        panels[0].set(title="Loss", ylim=(0, None))
        panels[1].set(title="Called real by the discriminator", xlabel="Epoch", ylim=(-0.02, 1.02))
        panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in panels:
            axes.legend(loc="best")
    return figure
