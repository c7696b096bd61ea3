"""Options of a command from a dataclass, by tyro, with mistakes told in one sentence."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from cxr_jax.errors import EXIT_USAGE, UserError

T = TypeVar("T")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RULE = re.compile(r"^(─+|-+)$")
_OPTION = re.compile(r"^--[\w.-]+")


def parse(
    kind: type[T],
    arguments: Sequence[str],
    *,
    prog: str,
    default: T | None = None,
    description: str | None = None,
) -> T:
    """Returns an instance of dataclass `kind` filled from `arguments`, starting from `default` where it is given.

    Prints the help of all options and raises SystemExit(0) when `arguments` hold `--help` or `-h`.

    Raises:
        UserError: an option is unknown, lacks its value or has an impossible one; its code is EXIT_USAGE.
    """
    options = {} if default is None else {"default": default}
    return _run_tyro(kind, arguments, prog=prog, description=description, **options)


def parse_known(
    kind: type[T], arguments: Sequence[str], *, prog: str, description: str | None = None
) -> tuple[T, list[str]]:
    """Returns as `parse`, together with the arguments that `kind` has no option for, in their order."""
    return _run_tyro(kind, arguments, prog=prog, description=description, return_unknown_args=True)


def _run_tyro(kind: type, arguments: Sequence[str], **options: Any) -> Any:
    import tyro

    # An Optional[dataclass] would otherwise become a subcommand that has to be named after all options.
    options["config"] = (tyro.conf.AvoidSubcommands,)
    if any(argument in ("-h", "--help") for argument in arguments):
        return tyro.cli(kind, args=list(arguments), **options)
    printed = io.StringIO()
    try:
        # tyro has no public way to hand its message over, so the box that it draws is read; in a wide one no word
        # is broken in two.
        with contextlib.redirect_stderr(printed), _terminal_width(100_000):
            return tyro.cli(kind, args=list(arguments), **options)
    except SystemExit as stop:
        if stop.code != EXIT_USAGE:
            raise
        sentence = _read_box(printed.getvalue()).removeprefix(f"{kind.__name__}: ")
        raise UserError(f"{sentence} (options: {options['prog']} --help)", EXIT_USAGE) from None


@contextlib.contextmanager
def _terminal_width(columns: int) -> Iterator[None]:
    """Lets shutil.get_terminal_size say `columns`, for as long as the block runs."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _read_box(box: str) -> str:
    """Returns the message of tyro's error box as one sentence, with the nearest valid options if the box names any."""
    # the first row is its title
    rows = [_COLOUR.sub("", row) for row in box.splitlines()][1:]
    rows = [row.strip().strip("│").strip() for row in rows if not row.startswith("╰")]
    # where the output is not UTF-8 a rule stands in place of the frame
    if rows and _RULE.match(rows[0]):
        rows = rows[1:]
    parts: list[list[str]] = [[]]
    for row in rows:
        if _RULE.match(row):
            parts.append([])
        else:
            parts[-1].append(row)
    sentence = " ".join(parts[0]).strip().removeprefix("Error parsing ").rstrip(".")
    nearest = [
        match.group()
        for part in parts
        if part and part[0].startswith("Perhaps you meant")
        for row in part
        if (match := _OPTION.match(row))
    ]
    return f"{sentence}; did you mean {nearest[0]}?" if nearest else sentence


def require_judging_options(target_sensitivity: float, cost_ratio: float, resamples: int) -> None:
    """Raises UserError for an option out of range of those that every command has which judges predictions."""
    if not 0 < target_sensitivity <= 1:
        raise UserError(f"--target-sensitivity is {target_sensitivity}, but must be above 0 and at most 1", EXIT_USAGE)
    if not cost_ratio > 0:
        raise UserError(f"--cost-ratio is {cost_ratio}, but must be above 0", EXIT_USAGE)
    if not 100 <= resamples <= 100_000:
        raise UserError(f"--resamples is {resamples}, but must be from 100 to 100000", EXIT_USAGE)
