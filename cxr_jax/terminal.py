"""What a command shows while it works: lines, tables, bars, and the same as plain lines in a log.

Printing never ends a command: characters that the output cannot hold are replaced by the nearest that it can.
"""

from __future__ import annotations

import codecs
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LOG_SECONDS = 30.0
"""Seconds between two lines about work under way, where the output is no terminal."""

_WIDE = 10_000
_PLAIN = {"–": "-", "—": "-", "−": "-", "±": "+-", "…": "...", "×": "x", "≥": ">=", "≤": "<=", "·": "-", "→": "->"}


def accept_any_text(*streams: IO[str]) -> None:
    """Has `streams` (by default standard output and standard error) print any text, whatever their encoding.

    A dash that the encoding lacks becomes a hyphen; other characters, and bytes of a file name that are no text, are
    escaped as in Python.
    """
    codecs.register_error("cxr_jax_plain", _replace)
    for stream in streams or (sys.stdout, sys.stderr):
        # under a test runner a stream may be of another kind, which takes any text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="cxr_jax_plain")


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Returns what is printed in place of the characters that could not be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    refused = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char) or char.encode("unicode_escape").decode() for char in refused), error.end


class Terminal:
    """What the commands print through; all text is printed as it is, brackets are no markup."""

    def __init__(self, *, quiet: bool = False, on_standard_error: bool = False) -> None:
        """Prints on standard output, or on standard error beside a result that goes into a pipe.

        With `quiet` nothing is shown.
        """
        self._quiet, self._on_standard_error = quiet, on_standard_error
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """The rich console that is printed on. Where it is no terminal, a line is as long as what it says."""
        if self._console is None:
            from rich.console import Console

            stream = sys.stderr if self._on_standard_error else sys.stdout
            self._console = Console(
                stderr=self._on_standard_error,
                width=None if stream.isatty() else _WIDE,
                quiet=self._quiet,
                markup=False,
                highlight=False,
                emoji=False,
            )
        return self._console

    @property
    def interactive(self) -> bool:
        """True where a person watches: bars move in place there, and are lines in a log elsewhere."""
        return not self._quiet and self.console.is_terminal

    def say(self, text: str, style: str | None = None) -> None:
        """Prints `text` as lines of its own, never broken by the width of the terminal."""
        self.console.print(text, style=style, soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """Prints a table or another thing that rich can draw."""
        self.console.print(renderable)

    def complain(self, sentence: str) -> None:
        """Prints `sentence` on standard error, as the mistakes of a command are printed."""
        print(f"cxr-jax: {sentence}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows work of `total` steps while the block runs; the yielded function is told how many more are done.

        A bar in a terminal; in a log a line every LOG_SECONDS, none for work that ends before. Both state the speed.
        """
        if self.interactive:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                ProgressColumn,
                Task,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.text import Text

            class Speed(ProgressColumn):
                """Steps a second, once they are known."""

                def render(self, task: Task) -> Text:
                    speed = task.finished_speed or task.speed
                    return Text("" if speed is None else f"{speed:.3g}/s")

            # a column would read brackets in the description as markup
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), Speed())
            with Progress(*columns, TimeRemainingColumn(), console=self.console) as bar:
                task = bar.add_task(description, total=total)
                yield lambda steps: bar.advance(task, steps)
            return
        done, begun = 0, time.monotonic()

        def advance(steps: int) -> None:
            nonlocal done
            done += steps

        def line() -> str:
            return f"{description}: {done:,} of {total:,}, {done / (time.monotonic() - begun):.3g}/s"

        with self._in_log(line):
            yield advance

    @contextlib.contextmanager
    def waiting(self, description: str) -> Iterator[None]:
        """Shows that work of unknown length is under way while the block runs, with the seconds that have passed."""
        begun = time.monotonic()
        if self.interactive:
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            with Progress(*columns, console=self.console, transient=True) as bar:
                bar.add_task(description, total=None)
                yield
            return
        self.say(description)
        with self._in_log(lambda: f"{description}: {time.monotonic() - begun:.0f} s"):
            yield

    @contextlib.contextmanager
    def _in_log(self, line: Callable[[], str]) -> Iterator[None]:
        """Prints `line` every LOG_SECONDS while the block runs."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(LOG_SECONDS):
                with contextlib.suppress(OSError, ValueError):
                    self.say(line())
                    self.console.file.flush()

        teller: Any = threading.Thread(target=tell, name="progress", daemon=True)
        if not self._quiet:
            teller.start()
        try:
            yield
        finally:
            ended.set()
            if teller.is_alive():
                teller.join()
