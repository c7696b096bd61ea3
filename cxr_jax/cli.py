"""`cxr-jax COMMAND ...`: picks a command, and tells every error as one sentence."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence

from cxr_jax import __version__, process
from cxr_jax.commands import GROUPS
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_MISTAKE, EXIT_USAGE, UserError, suggestion
from cxr_jax.runs.files import FORBIDDEN, FULL
from cxr_jax.terminal import Terminal, accept_any_text, discard, lost_output, open_closed_streams, starting
from cxr_jax.vocabulary import DISCLAIMER

_TRACEBACK_OPTION = "--traceback"
_TRACEBACK_SWITCH = "CXR_JAX_TRACEBACK"
_EXIT_BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` name, and returns the exit code.

    Without `arguments` those of the process are taken and the process itself is configured, which may start it anew:
    only the console entry point calls it so.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = _TRACEBACK_OPTION in given or os.environ.get(_TRACEBACK_SWITCH, "0") not in ("", "0")
    given = [argument for argument in given if argument != _TRACEBACK_OPTION]
    if arguments is None:
        open_closed_streams()
        accept_any_text()
    if arguments is None and not show_traceback:
        _silence_other_threads()
    try:
        code = _dispatch(given, configure=arguments is None)
        # Standard output may be a full disk or a closed pipe, which shows only here.
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return _EXIT_BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if show_traceback:
            traceback.print_exc()
        sentence, code = _tell(error)
        Terminal().complain(sentence)
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
    lost = lost_output()
    # whoever closed a pipe has seen enough
    if lost is not None and lost.errno != errno.EPIPE:
        Terminal().complain(f"what this command printed is lost in part ({lost.strerror}); its files are written")
    return process.leave_with(code)


def help_text() -> str:
    """Returns what `cxr-jax --help` prints: the commands in the order of use, a line each."""
    width = max((len(name) for commands in GROUPS.values() for name in commands), default=0)
    lines = ["usage: cxr-jax COMMAND [arguments]", "       cxr-jax COMMAND --help"]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<{width}}  {summary}" for name, summary in commands.items())]
    lines += [
        "",
        "options:",
        "  --help, -h   show this text",
        "  --version    show the version",
        "  --traceback  after an error, show where in the program it happened",
        "",
        DISCLAIMER,
    ]
    return "\n".join(lines)


def _dispatch(arguments: list[str], *, configure: bool) -> int:
    if not arguments:
        print(help_text(), file=sys.stderr)
        return EXIT_USAGE
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if name in ("-V", "--version"):
        print(f"cxr-jax {__version__}")
        return 0
    if not any(name in commands for commands in GROUPS.values()):
        raise UserError(_unknown(name), EXIT_USAGE)
    if configure:
        process.configure_process()
    with starting(f"cxr-jax {name} starts") if configure else contextlib.nullcontext():
        command = importlib.import_module(f"cxr_jax.commands.{name.replace('-', '_')}")
    return command.main(rest) or 0


def _unknown(name: str) -> str:
    hint = suggestion(name, [name for commands in GROUPS.values() for name in commands])
    kind = "option" if name.startswith("-") else "command"
    return f"there is no {kind} {name}{hint or '; cxr-jax --help lists the commands'}"


def _tell(error: BaseException) -> tuple[str, int]:
    """Returns `error` as a sentence and an exit code."""
    if isinstance(error, UserError):
        return str(error), error.code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if (asked := os.environ.get("JAX_PLATFORMS")) and _finds_no_device(error):
        return (
            f"JAX_PLATFORMS asks for {asked}, which is not to be had here: this machine has no such device, or jax is "
            "installed without support for it; unset JAX_PLATFORMS to compute on what there is"
        ), EXIT_MISTAKE
    if isinstance(error, OSError) and error.errno in FULL:
        where = f": {error.filename} could not be written" if error.filename else ""
        return f"the disk is full{where}; free some space and try again", EXIT_MISTAKE
    if isinstance(error, OSError) and error.errno in FORBIDDEN:
        return f"permission denied for {error.filename or 'a file'}: change its rights or choose another", EXIT_MISTAKE
    # jax's own error type, which only a command may import; on CPU and GPU alike it begins with the status's name.
    if isinstance(error, MemoryError) or str(error).startswith("RESOURCE_EXHAUSTED: Out of memory"):
        return "out of memory; a smaller batch or image size needs less", EXIT_MISTAKE
    summary = " ".join(f"{type(error).__name__}: {error}".split())
    summary = summary if len(summary) <= 300 else summary[:300] + "..."
    return f"unexpected error, please report it ({summary}){_save_traceback(error)}", EXIT_MISTAKE


def _finds_no_device(error: BaseException) -> bool:
    """Returns whether jax raised `error` for want of a device; it has no type of its own, nor always a text."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("Unable to initialize backend")
    if isinstance(error, AssertionError) and not str(error) and "jax" in sys.modules:
        try:
            sys.modules["jax"].devices()
        except (AssertionError, RuntimeError):
            return True
    return False


def _save_traceback(error: BaseException) -> str:
    """Writes the traceback of `error` to a new file for the report, and says where; nothing if it cannot be written."""
    with contextlib.suppress(OSError):
        handle, path = tempfile.mkstemp(prefix="cxr-jax-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(traceback.format_exception(error))
        return f"; its traceback is in {path}"
    return ""


def _silence_other_threads() -> None:
    """Prints no traceback of a background thread or of a clean-up at exit.

    When a disk fills up, the threads that save checkpoints and write logs print hundreds of lines each; what a person
    must know is raised in the main thread and told by `main`.
    """
    sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *_details: None


def _discard_output() -> None:
    """Sends what is left of standard output nowhere, so that leaving the interpreter does not fail on it again."""
    discard(sys.stdout.fileno())
