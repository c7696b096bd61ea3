"""Mistakes that a person can put right, and the exit codes of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

EXIT_MISTAKE = 1
"""A mistake in the input, told in one sentence."""

EXIT_USAGE = 2
"""The command line could not be understood."""

EXIT_LOST = 69
"""Another process of the same training ended, hung or failed; all of them can be resumed."""

EXIT_TERMINATED = 75
"""Training was asked to stop by SIGTERM, saved its state and can be resumed."""

EXIT_INTERRUPTED = 130
"""Training was stopped by Ctrl-C, saved its state and can be resumed."""


MAXIMUM_LENGTH = 1200
"""Characters of a sentence; what stands in the middle of a longer one is left out."""

_END = 200


class UserError(Exception):
    """A mistake told in one sentence: what is wrong, where, and what to do.

    Sentences quote names and values out of files that anybody may have made: what a terminal would not print as it
    is, such as line breaks and control codes, is escaped, and the middle of a very long sentence is left out.

    Raised by any room. The command line prints the sentence and exits with `code`; commands that go on with other files
    print it and fail at the end.
    """

    def __init__(self, sentence: str, code: int = EXIT_MISTAKE) -> None:
        super().__init__(printable(_shortened(sentence)))
        self.code = code


def printable(text: str) -> str:
    """Returns `text` with what cannot be printed escaped as in Python: control codes, bytes that are no text."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _shortened(text: str) -> str:
    """Returns `text`, without its middle where it is longer than MAXIMUM_LENGTH."""
    if len(text) <= MAXIMUM_LENGTH:
        return text
    return f"{text[: MAXIMUM_LENGTH - _END - 5]} ... {text[-_END:]}"


def run_script(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Runs the main function of a script on the arguments of the process, and leaves with the exit code it returns.

    A UserError is told as one sentence on standard error, and leaves with EXIT_USAGE.
    """
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        code = EXIT_USAGE
    sys.exit(code)


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Returns a question with the nearest of `valid` names, or nothing when none is near."""
    import difflib

    nearest = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
