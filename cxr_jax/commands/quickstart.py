"""`cxr-jax quickstart [PATH]`: the whole path once, on phantoms or on a data set of your own."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import UserError
from cxr_jax.terminal import Terminal, as_arguments, as_typed

SUMMARY = "train, judge and explain a small network, on phantoms or on your data"

DATASET = "quickstart"
"""A name of its own, so that data which somebody has prepared are never replaced by these."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # a chest_xray folder or zip, or whatever cxr-jax prepare takes; without it phantoms are drawn
    source: Annotated[str, Positional("[PATH]")] = ""
    out: Annotated[str, Option("FOLDER")] = "runs"  # where the run goes, beside earlier ones


def main(arguments: list[str]) -> None:
    """Takes every step from files to a report, and says how each is called by itself.

    Raises:
        UserError: as the commands that are called.
    """
    options = parse(Options, arguments, prog="cxr-jax quickstart", description=SUMMARY)
    runs = Path(options.out)
    source = Path(options.source) if options.source else runs / "phantoms"
    if options.source and not source.exists():
        raise UserError(f"there is no {source}; give a chest_xray folder or zip, or nothing")
    run = next(path for number in itertools.count(1) if not (path := runs / f"quickstart-{number}").exists())
    terminal = Terminal()
    if not source.exists():
        _take(terminal, "phantoms", source)
    _take(terminal, "prepare", source, "--name", DATASET, "--replace")
    _take(terminal, "train", "quickstart", "--out", run, "--data.dataset", DATASET)
    _announce(terminal, "evaluate", run)
    from cxr_jax.commands import evaluate

    evaluation = evaluate.evaluate(evaluate.Options((str(run),)), terminal)
    _take(terminal, "explain", run)
    # the table, the report and the figures last, so that nothing hides them
    terminal.say("")
    evaluate.print_evaluation(terminal, evaluation)
    terminal.say(f"Heat maps: {run / 'explanations'}")


def _take(terminal: Terminal, command: str, *arguments: str | Path) -> None:
    """Runs a command as if it had been typed."""
    _announce(terminal, command, *arguments)
    importlib.import_module(f"cxr_jax.commands.{command}").main(as_arguments(*arguments))


def _announce(terminal: Terminal, *words: str | Path) -> None:
    terminal.say(f"\n> {as_typed('cxr-jax', *words)}")
