"""Options of a command from the fields of a dataclass, by argparse, with mistakes told in one sentence."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cxr_jax.errors import EXIT_USAGE, UserError, suggestion

T = TypeVar("T")

_KINDS = {int: ("INTEGER", "a whole number"), float: ("NUMBER", "a number")}
"""How values of a type are shown in the help, and what they must be."""


@dataclass(frozen=True)
class Positional:
    """In `Annotated[type, Positional("RUN")]`: the argument has no option, and the help calls it RUN."""

    metavar: str


@dataclass(frozen=True)
class Option:
    """In `Annotated[type, Option(...)]`: how an option is called, and its value in the help."""

    metavar: str = ""
    name: str = ""  # where the field's own name is taken in Python


def parse(kind: type[T], arguments: Sequence[str], *, prog: str, description: str | None = None) -> T:
    """Returns an instance of dataclass `kind` filled from `arguments`.

    A field is an option `--its-name`, a field of type bool a switch. The comment of a field in the source is its help.
    Prints the help and raises SystemExit(0) when `arguments` hold `--help` or `-h`.

    Raises:
        UserError: an option is unknown, lacks its value or has an impossible one; its code is EXIT_USAGE.
    """
    parser = OptionParser(prog, description)
    parser.add_fields(kind)
    return kind(**parser.read(arguments))


class OptionParser(argparse.ArgumentParser):
    """A parser that has options for the fields of dataclasses, and tells a mistake by UserError."""

    def __init__(
        self, prog: str, description: str | None = None, respell: Callable[[str], str] = lambda option: option
    ) -> None:
        """Has `respell` turn an option that is not known into one that is, if it can."""
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, None, description, formatter_class=layout, allow_abbrev=False, exit_on_error=False)
        self._respell = respell
        self._known: dict[str, str] = {}  # options by how they may be spelled: with hyphens for underscores too
        self._shown: list[tuple[argparse.Action, type, str, Any]] = []  # in the help: of which field, and its default
        self._required: dict[str, str] = {}  # what must be given, by field

    def add_fields(self, kind: type, *, prefix: str = "", shown: Any = None, group: Any = None) -> Any:
        """Adds an option for every field of dataclass `kind` that is no dataclass itself, and returns their group.

        Args:
            kind: the dataclass.
            prefix: of the names, such as `optimizer.`; they have a group of their own in the help then, and what is
                not given is left out of what `read` returns.
            shown: with a prefix, an instance whose values the help shows as the defaults; without one the help leaves
                them out.
            group: which they join.
        """
        if group is None:
            about = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
            group = self.add_argument_group(prefix.rstrip("."), about) if prefix else self
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            read = _Reading.of(hints[field.name])
            if read.type is not None:
                hidden = prefix != "" and shown is None
                action = self._add(group, field, read, prefix, argparse.SUPPRESS if hidden else "")
                if not hidden:
                    default = getattr(shown, field.name) if prefix else _default(field)
                    self._shown.append((action, kind, field.name, default))
        return group

    def _add(self, group: Any, field: dataclasses.Field, read: _Reading, prefix: str, text: str) -> argparse.Action:
        """Adds the argument of a field, and returns it."""
        key, default = f"{prefix}{field.name}", argparse.SUPPRESS if prefix else _default(field)
        option = option_of(f"{prefix}{read.name or field.name}")
        if default is dataclasses.MISSING:
            self._required[key] = read.metavar if read.positional else option
        value = {"type": read.value, "default": default, "metavar": read.metavar, "help": text}
        if read.positional:
            return group.add_argument(key, nargs="*" if read.many else "?", **value)
        self._take(option)
        if read.type is not bool:
            return group.add_argument(option, dest=key, nargs="*" if read.many else None, **value)
        switch = {"dest": key, "action": "store_const", "default": default}
        if prefix:
            self._take(_off(option))
            group.add_argument(_off(option), const=False, help=argparse.SUPPRESS, **switch)
        return group.add_argument(option, const=True, help=text, **switch)

    def _take(self, option: str) -> None:
        self._known[option] = option
        self._known.setdefault(option.replace("_", "-"), option)

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Returns the values by field, as `add_fields` was told; prints the help, or raises, as `parse` says."""
        if any(argument in ("-h", "--help") for argument in arguments):
            self._print_help()
            raise SystemExit(0)
        try:
            found, unknown = self.parse_known_intermixed_args([self._spelled(argument) for argument in arguments])
        except argparse.ArgumentError as mistake:
            self.error(_told(mistake))
        if unknown:
            self.error(self._told_unknown(unknown))
        values = vars(found)
        missing = [name for key, name in self._required.items() if values[key] is dataclasses.MISSING]
        if missing:
            self.error(f"{' and '.join(missing)} must be given")
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    def error(self, message: str) -> typing.NoReturn:
        """Raises UserError with `message`, and where the options are listed."""
        raise UserError(f"{message} (options: {self.prog} --help)", EXIT_USAGE)

    def _spelled(self, argument: str) -> str:
        """Returns `argument` with its option as the parser knows it."""
        option, equals, value = argument.partition("=")
        if not option.startswith("--") or option in self._known:
            return self._known.get(option, option) + equals + value
        hyphens = option.replace("_", "-")
        return (self._known.get(hyphens) or self._known.get(self._respell(option), option)) + equals + value

    def _print_help(self) -> None:
        positionals = [action.metavar for action, *_ in self._shown if not action.option_strings]
        self.usage = " ".join([self.prog, *positionals, "[options]"])
        for action, kind, name, default in self._shown:
            off = _off(action.option_strings[0]) if default is True else ""
            action.help = _help(comments_of(kind).get(name, ""), default, off)
        print(self.format_help(), end="")

    def _told_unknown(self, unknown: Sequence[str]) -> str:
        option = next((entry.partition("=")[0] for entry in unknown if entry.startswith("-")), None)
        if option is None:
            return f"{unknown[0]} is one argument too many"
        shown = [action.option_strings[0] for action, *_ in self._shown if action.option_strings]
        return f"there is no option {option}{suggestion(option.replace('_', '-'), shown)}"


def option_of(key: str) -> str:
    """Returns the option for a dotted key; the name of a phase stays as it is."""
    phase, dot, field = key.rpartition(".") if key.startswith("phases.") else ("", "", key)
    return f"--{phase}{dot}{field.replace('_', '-')}"


@dataclass(frozen=True)
class _Reading:
    """How the text of an option becomes the value of a field."""

    type: type | None  # of one value; None for a dataclass
    choices: tuple[str, ...] = ()
    many: bool = False
    optional: bool = False
    metavar: str = ""
    name: str = ""
    positional: bool = False

    @classmethod
    def of(cls, hint: Any) -> _Reading:
        """Returns it for the type of a field."""
        marks = getattr(hint, "__metadata__", ())
        mark = next((entry for entry in marks if isinstance(entry, (Positional, Option))), Option())
        hint = typing.get_args(hint)[0] if marks else hint
        optional = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        if optional:
            hint = next(entry for entry in typing.get_args(hint) if entry is not type(None))
        many = typing.get_origin(hint) is tuple
        hint = typing.get_args(hint)[0] if many else hint
        if dataclasses.is_dataclass(hint):
            return cls(None)
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        shown = f"{{{','.join(choices)}}}" if choices else _KINDS.get(hint, ("TEXT",))[0]
        return cls(
            type=str if choices else hint,
            choices=choices,
            many=many,
            optional=optional,
            metavar=mark.metavar or shown,
            name=getattr(mark, "name", ""),
            positional=isinstance(mark, Positional),
        )

    def value(self, text: str) -> Any:
        """Returns the value that `text` stands for; ArgumentTypeError if it stands for none."""
        if self.optional and text == "None":
            return None
        try:
            if self.choices and text not in self.choices:
                raise ValueError(text)
            return self.type(text)
        except ValueError:
            expected = f"one of {', '.join(self.choices)}" if self.choices else _KINDS[self.type][1]
            raise argparse.ArgumentTypeError(f"is {text!r}, but must be {expected}") from None


def _told(mistake: argparse.ArgumentError) -> str:
    """Returns what argparse found as a sentence."""
    name, message = (mistake.argument_name or "").partition("/")[0], mistake.message
    if message.startswith("expected"):
        return f"{name} lacks its value"
    # the message of a value that cannot be read goes on from the name of its option
    return f"{name} {message}" if message.startswith("is ") else f"{name} takes no value ({message})"


def _default(field: dataclasses.Field) -> Any:
    """Returns the default of a field, MISSING if it has none."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _off(option: str) -> str:
    """Returns the option that turns a switch off."""
    section, dot, name = option.removeprefix("--").rpartition(".")
    return f"--{section}{dot}no-{name}"


def _help(comment: str, default: Any, off: str) -> str:
    """Returns the help of a field: its comment, the default where that says something, and what turns it off."""
    if default is True:
        comment += f" (default: on; off by {off})"
    elif default not in ("", (), None, dataclasses.MISSING) and default is not False:
        comment += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"
    return comment.strip().replace("%", "%%")


@functools.cache
def comments_of(kind: type) -> dict[str, str]:
    """Returns the comment of every field of a dataclass as its source has it: behind the field, or in lines above."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        above: list[str] = []
        # a class that was made without a source has no comments
        with contextlib.suppress(OSError):
            for line in inspect.getsource(owner).splitlines():
                if line.strip().startswith("#"):
                    above.append(line.strip("# "))
                    continue
                if match := re.match(r"    (\w+): .*?(?:  # (.*))?$", line):
                    found[match[1]] = " ".join([*above, match[2] or ""]).strip()
                above = []
    return found


def require_judging_options(target_sensitivity: float, cost_ratio: float, resamples: int) -> None:
    """Raises UserError for an option out of range of those that every command has which judges predictions."""
    if not 0 < target_sensitivity <= 1:
        raise UserError(f"--target-sensitivity is {target_sensitivity}, but must be above 0 and at most 1", EXIT_USAGE)
    if not cost_ratio > 0:
        raise UserError(f"--cost-ratio is {cost_ratio}, but must be above 0", EXIT_USAGE)
    if not 100 <= resamples <= 100_000:
        raise UserError(f"--resamples is {resamples}, but must be from 100 to 100000", EXIT_USAGE)
