"""Mistakes that a person can put right, and the exit codes of the command line."""

EXIT_MISTAKE = 1
"""A mistake in the input, told in one sentence."""

EXIT_USAGE = 2
"""The command line could not be understood."""

EXIT_TERMINATED = 75
"""Training was asked to stop by SIGTERM, saved its state and can be resumed."""

EXIT_INTERRUPTED = 130
"""Training was stopped by Ctrl-C, saved its state and can be resumed."""


class UserError(Exception):
    """A mistake told in one sentence: what is wrong, where, and what to do.

    Raised by any room; only the command line catches it, prints the sentence and exits with `code`.
    """

    def __init__(self, sentence: str, code: int = EXIT_MISTAKE) -> None:
        super().__init__(sentence)
        self.code = code
