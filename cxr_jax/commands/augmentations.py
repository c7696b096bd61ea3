"""`cxr-jax augmentations [CONFIG] --out FIGURE.png`: show the random changes of training images on phantoms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal

SUMMARY = "show on phantoms how training images are changed at random"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # the config whose training images are shown, phase by phase; without it every change is shown alone
    config: Annotated[str, Positional("[CONFIG]")] = ""
    out: Annotated[str, Option("FIGURE.png")] = ""  # where the figure is written
    seed: int = 0  # of phantoms and draws
    replace: bool = False  # replace FIGURE.png if it exists


def main(arguments: list[str]) -> None:
    """Draws the figure that `arguments` ask for.

    Raises:
        UserError: a mistake in the options or the config, or the figure exists or cannot be written.
    """
    options = parse(Options, arguments, prog="cxr-jax augmentations", description=SUMMARY)
    if not options.out.endswith(".png"):
        raise UserError("name a PNG file for the figure: cxr-jax augmentations --out FIGURE.png", EXIT_USAGE)
    if not 0 <= options.seed < 2**31:
        raise UserError(f"--seed is {options.seed}, but must be from 0 to 2147483647", EXIT_USAGE)
    out = Path(options.out)
    if out.exists() and not options.replace:
        raise UserError(f"{out} exists already; choose another name, or replace it by --replace")

    from cxr_jax.config.loading import load_config
    from cxr_jax.config.shipped import find_config

    terminal = Terminal()
    config = load_config(find_config(options.config)) if options.config else None

    with terminal.waiting(f"Drawing {out}"):
        from cxr_jax.reporting.augmentations import changes_figure, training_figure, write_figure

        if config is None:
            figure = changes_figure(seed=options.seed)
        else:
            figure = training_figure(config.data, config.resolved_phases(), seed=options.seed)
        write_figure(figure, out)
    terminal.say(f"Written: {out}")
