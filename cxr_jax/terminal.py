"""What a command shows while it works: lines, tables, bars, and the same as plain lines in a log.

Printing never ends a command: characters that the output cannot hold are replaced by the nearest that it can, and what
a full disk or a closed pipe does not take is left out.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LOG_SECONDS = 30.0
"""Seconds between two lines about work under way, where the output is no terminal."""

_WIDE = 10_000
_SAFE = {chr(number) for number in range(32, 127)} - {"'", "\\"}
_PLAIN = {"–": "-", "—": "-", "−": "-", "±": "+-", "…": "...", "×": "x", "≥": ">=", "≤": "<=", "·": "-", "→": "->"}


def open_closed_streams() -> None:
    """Opens standard input, output and error to nowhere where the process was started without them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        place: int | str = os.devnull
        try:
            os.fstat(number)
            # what a library has opened meanwhile may have the number of a stream that was closed
            if getattr(sys, name) is not None:
                continue
        except OSError:
            discard(number)
            place = number
        setattr(sys, name, open(place, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123


def discard(descriptor: int) -> None:
    """Sends what is written to `descriptor` from now on nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    os.set_inheritable(descriptor, True)


def as_typed(*words: str | Path) -> str:
    """Returns the command line of `words` as it is typed into a shell; a path that begins with a dash is told apart."""
    return " ".join(map(_quoted, as_arguments(*words)))


def as_arguments(*words: str | Path) -> list[str]:
    """Returns `words` as a program takes them; a path that begins with a dash is told apart from an option."""
    return [f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words]


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(chr(byte) if chr(byte) in _SAFE else f"\\x{byte:02x}" for byte in os.fsencode(word)) + "'"


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


class _Output:
    """Standard output or error, whichever stream that is at the time, as a file whose use never fails.

    The first failure ends it: everything after is left out, and `lost` says why.
    """

    lost: OSError | None = None
    """Why a stream of this process does not take any more; None as long as all do."""

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        """Writes `text`, or leaves it out."""
        with self._unfailing():
            getattr(sys, self._name).write(text)
        return len(text)

    def flush(self) -> None:
        """Hands on what was written, or leaves it out."""
        with self._unfailing():
            getattr(sys, self._name).flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)

    @contextlib.contextmanager
    def _unfailing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _Output.lost = _Output.lost or error
            # what still waits in the stream would fail again when the interpreter ends
            with contextlib.suppress(OSError, ValueError):
                discard(self.fileno())
        except ValueError:
            # the stream was closed
            return


@contextlib.contextmanager
def starting(text: str) -> Iterator[None]:
    """Shows `text` to a person who watches, until the block has imported what can say more."""
    output = _Output("stderr")
    watched = output.isatty()
    if watched:
        output.write(text)
        output.flush()
    try:
        yield
    finally:
        if watched:
            # back to the first column, and the line is empty again
            output.write("\r\x1b[2K")
            output.flush()


def lost_output() -> OSError | None:
    """Returns why something that a `Terminal` was to print is lost; None where all was printed."""
    return _Output.lost


class Terminal:
    """What the commands print through; all text is printed as it is, brackets are no markup."""

    def __init__(self, *, quiet: bool = False, on_standard_error: bool = False, console: Console | None = None) -> None:
        """Prints on standard output, or on standard error beside a result that goes into a pipe.

        With `quiet` nothing is shown. A `console` is printed on as it is.
        """
        self._quiet, self._on_standard_error, self._console = quiet, on_standard_error, console

    @property
    def console(self) -> Console:
        """The rich console that is printed on. Where it is no terminal, a line is as long as what it says."""
        if self._console is None:
            from rich.console import Console

            output: Any = _Output("stderr" if self._on_standard_error else "stdout")
            self._console = Console(
                file=output,
                width=None if output.isatty() else _WIDE,
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
        self.console.print(text, style=style, soft_wrap=True, markup=False, highlight=False, emoji=False)

    def show(self, renderable: RenderableType) -> None:
        """Prints a table or another thing that rich can draw."""
        self.console.print(renderable)

    def complain(self, sentence: str) -> None:
        """Prints `sentence` on standard error, as the mistakes of a command are printed."""
        output = _Output("stderr")
        output.write(f"cxr-jax: {sentence}\n")
        output.flush()

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

        with self.telling(line):
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
        with self.telling(lambda: f"{description}: {time.monotonic() - begun:.0f} s"):
            yield

    @contextlib.contextmanager
    def telling(self, line: Callable[[], str]) -> Iterator[None]:
        """Prints `line` every LOG_SECONDS while the block runs; for a log, where no bar can move."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(LOG_SECONDS):
                self.say(line())

        teller = threading.Thread(target=tell, name="progress", daemon=True)
        if not self._quiet:
            teller.start()
        try:
            yield
        finally:
            ended.set()
            if teller.is_alive():
                teller.join()
