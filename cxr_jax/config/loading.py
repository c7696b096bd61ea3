"""A config from its TOML file and from the command line, and back into a file."""

from __future__ import annotations

import dataclasses
import functools
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from cxr_jax.config.command_line import OptionParser, option_of
from cxr_jax.config.effect import refuse_without_effect
from cxr_jax.config.overrides import (
    RENAMED,
    Tell,
    dotted,
    overridden,
    phase_names,
    silently,
    tables_with_new_names,
    with_new_names,
)
from cxr_jax.config.schema import Config
from cxr_jax.errors import EXIT_MISTAKE, EXIT_USAGE, UserError, suggestion
from cxr_jax.runs.files import write_text

if typing.TYPE_CHECKING:
    import pydantic
    from pydantic_core import ErrorDetails

T = TypeVar("T")

_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "a section with fields",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "a text in quotes",
    "tuple_type": "a list",
}
"""What pydantic's error types ask for, in the words of a TOML file."""


@dataclass(frozen=True)
class Given(Generic[T]):
    """A config and options of a command, as files and the command line give them."""

    options: T
    config: Config
    changes: dict[str, Any]  # of the config, by dotted key, that the command line makes


def load_config(path: str | Path, tell: Tell = silently) -> Config:
    """Returns the experiment that TOML file `path` describes; `tell` gets a sentence for each key of old.

    Raises:
        UserError: the file is missing or malformed, or a key, a type or a value is wrong in it.
    """
    return config_of(read_tables(Path(path), tell), str(path))


def load_with_options(
    path: str | Path,
    arguments: Sequence[str],
    options: type[T],
    *,
    prog: str,
    description: str | None = None,
    tell: Tell = silently,
) -> Given[T]:
    """Returns what `load_config` does, changed by options such as `--optimizer.learning-rate 0.02` or
    `--phases.head.epochs 3`, and `options` filled from the same command line.

    Prints the help of all of them, with the file's values as defaults, and raises SystemExit(0) when `arguments` hold
    `--help`; `prog` is the command named there.

    Raises:
        UserError: as in `load_config`; or an option is wrong, or has no effect.
    """
    tables = read_tables(Path(path), tell)
    config = config_of(tables, str(path))
    parser = OptionParser(prog, description, lambda option: _respelled(option, config, tell))
    parser.add_fields(options)
    _add_config(parser, config)
    values = parser.read(arguments)
    own = {field.name: values.pop(field.name) for field in dataclasses.fields(options)}
    if values:
        told = {key: option_of(key) for key in values}
        config = config_of(overridden(tables, values, "the command line"), str(path), told)
        refuse_without_effect(config, values)
    return Given(options(**own), config, values)


def changed_config(tables: Mapping[str, Any], changes: Mapping[str, Any], place: str) -> Given[None]:
    """Returns the config of `tables`, which stand at `place`, with `changes` by dotted key, which a program makes.

    Raises:
        UserError: a key, a type or a value is wrong, or a change has no effect.
    """
    named = with_new_names(dotted(changes, "changes"), "changes")
    config_of(tables, place)
    told = {key: f"{key} in changes" for key in named}
    config = config_of(overridden(tables, named, "changes"), place, told)
    refuse_without_effect(config, named, told.__getitem__)
    return Given(None, config, named)


def _add_config(parser: OptionParser, config: Config) -> None:
    """Adds an option for every field of `config`."""
    sections = {name: section for name, section in vars(config).items() if name != "phases"}
    for name, section in sections.items():
        parser.add_fields(type(section), prefix=f"{name}.", shown=section)
        for field in dataclasses.fields(section):
            if dataclasses.is_dataclass(inner := getattr(section, field.name)):
                parser.add_fields(type(inner), prefix=f"{name}.{field.name}.", shown=inner)
    for phase in config.phases:
        prefix = f"phases.{phase.name}."
        group = parser.add_fields(type(phase), prefix=prefix, shown=phase)
        own = {name: getattr(phase, name) for name in sections if hasattr(phase, name)}
        for name, section in own.items():
            parser.add_fields(type(sections[name]), prefix=f"{prefix}{name}.", shown=section, group=group)
        taken = [name for name, section in own.items() if section is None]
        if taken:
            group.description += (
                f" What it takes from {', '.join(taken)} can be changed for it alone, as by "
                f"{option_of(f'{prefix}{taken[0]}.FIELD')}."
            )


def _respelled(option: str, config: Config, tell: Tell) -> str:
    """Returns the option of today for one of an earlier version, or for one that gives a phase its number from 0."""
    section, _, rest = option.removeprefix("--").partition(".")
    number, _, field = rest.partition(".")
    names = {str(place): phase.name for place, phase in enumerate(config.phases)}
    if section == "phases" and number in names:
        return option_of(f"phases.{names[number]}.{field}")
    if section == "phases" and not names:
        told = f"{option} reaches into a phase, but the config has no [[phases]]: name the section"
        raise UserError(told, EXIT_USAGE)
    old = f"{section}.{rest}".replace("-", "_")
    if old not in RENAMED:
        return option
    tell(f"{option} is called {option_of(RENAMED[old])} now")
    return option_of(RENAMED[old])


def read_tables(path: Path, tell: Tell = silently) -> dict[str, Any]:
    """Returns the tables of a config's file, unchecked, under the names of today."""
    return tables_with_new_names(read_toml(path), str(path), tell)


def write_config(config: Config, path: str | Path) -> None:
    """Writes every field of `config` to TOML file `path`, atomically; `load_config` reads the same config back."""
    write_text(path, format_config(config))


def format_config(config: Config) -> str:
    """Returns every field of `config` as TOML text; what a phase leaves out is left out."""
    tables = {name: value for name, value in dataclasses.asdict(config).items() if name != "phases"}
    lines = [line for name, fields in tables.items() for line in _format_table(name, fields)]
    for phase in config.phases:
        lines += _format_table("phases", dataclasses.asdict(phase), listed=True)
    return "\n".join(lines[1:]) + "\n"


def format_sections(config: Config, names: Sequence[str]) -> str:
    """Returns the sections `names` of `config` as TOML text, every field of them."""
    tables = dataclasses.asdict(config)
    return "\n".join([line for name in names for line in _format_table(name, tables[name])][1:]) + "\n"


def _format_table(name: str, fields: Mapping[str, Any], *, listed: bool = False) -> list[str]:
    """Returns the lines of a table, an entry of a list or not, and of the tables in it; what is None is left out."""
    nested = {key: value for key, value in fields.items() if isinstance(value, Mapping)}
    flat = {key: value for key, value in fields.items() if value is not None and key not in nested}
    lines = ["", f"[[{name}]]" if listed else f"[{name}]"]
    lines += [f"{key} = {_format_value(value)}" for key, value in flat.items()]
    return lines + [line for key, value in nested.items() for line in _format_table(f"{name}.{key}", value)]


def _format_value(value: bool | int | float | str | Sequence[str]) -> str:
    """Returns `value` in TOML's notation, which is JSON's but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the tables of TOML file `path`, unchecked; UserError if it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        beside = (str(other) for other in path.parent.glob("*.toml"))
        raise UserError(f"there is no config {path}{suggestion(str(path), beside)}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a config: it holds no UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    except (RecursionError, ValueError):
        raise UserError(f"{path} is no config: a value in it is nested too deeply or has too many digits") from None
    except OSError as error:
        raise UserError(f"the config {path} cannot be read: {error.strerror}") from None


def config_of(tables: Mapping[str, Any], place: str, told: Mapping[str, str] | None = None) -> Config:
    """Returns the config of `tables`, as `read_toml` gives them.

    Args:
        tables: of every section.
        place: where they stand.
        told: how keys are called that stand elsewhere, such as the options of a command line.

    Raises:
        UserError: a key, a type or a value is wrong; EXIT_USAGE is its code if the key stands elsewhere.
    """
    import pydantic

    # pydantic is strict about types, yet takes lists for tuples, only when it reads JSON: from Python objects `true`
    # would pass as an integer. TOML's dates, which JSON has no word for, must not turn into valid texts.
    try:
        text = json.dumps(tables, default=lambda date: {"date": str(date)})
    except (RecursionError, ValueError):
        raise UserError(f"{place} is no config: a value in it is nested too deeply or has too many digits") from None
    try:
        return _adapter().validate_json(text, strict=True)
    except pydantic.ValidationError as mistakes:
        first, *others = mistakes.errors(include_url=False)
        more = f" (and {len(others)} more mistake{'s' if len(others) > 1 else ''})" if others else ""
        if first["type"] == "json_invalid":
            raise UserError(f"{'the command line' if told else place} holds text that is not valid Unicode") from None
        key, rest = _describe(first, phase_names(tables))
        elsewhere = (told or {}).get(key)
        raise UserError(
            f"{elsewhere or f'{key} in {place}'} {rest}{more}", EXIT_USAGE if elsewhere else EXIT_MISTAKE
        ) from None


@functools.cache
def _adapter() -> pydantic.TypeAdapter[Config]:
    """Returns what checks a config; it takes far longer to build than to use."""
    import pydantic

    return pydantic.TypeAdapter(Config)


def _describe(mistake: ErrorDetails, phases: Sequence[str]) -> tuple[str, str]:
    """Returns the dotted key of one of pydantic's findings, and what is wrong with it."""
    kind, loc = mistake["type"], mistake["loc"]
    name = ".".join(phases[part] if loc[0] == "phases" and place == 1 else str(part) for place, part in enumerate(loc))
    if kind == "unexpected_keyword_argument":
        return name, f"is unknown{suggestion(str(loc[-1]), _fields_beside(loc))}"
    if kind == "value_error":
        # the message begins with the field's own name; loc ends at its section
        field, _, rest = str(mistake["ctx"]["error"]).partition(" ")
        return ".".join(filter(None, (name, field))), rest
    expected = f"one of {mistake['ctx']['expected']}" if kind == "literal_error" else _EXPECTED.get(kind)
    value = json.dumps(mistake["input"], ensure_ascii=False)
    found = value if len(value) <= 60 else value[:60] + "..."
    return name, f"is {found}: {mistake['msg']}" if expected is None else f"is {found}, but must be {expected}"


def _fields_beside(loc: Sequence[str | int]) -> list[str]:
    """Returns the valid names where `loc` points: fields of the dataclass that holds its last part."""
    kind: Any = Config
    for part in loc[:-1]:
        hint = typing.get_args(kind)[0] if isinstance(part, int) else typing.get_type_hints(kind)[part]
        # X | None
        kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
    return [field.name for field in dataclasses.fields(kind)]
