"""A config from its TOML file and from the command line, and back into a file."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_jax.config.command_line import parse
from cxr_jax.config.effect import refuse_without_effect
from cxr_jax.config.renamed import with_new_names
from cxr_jax.config.schema import Config
from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_text

if typing.TYPE_CHECKING:
    import pydantic
    from pydantic_core import ErrorDetails

_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "a section with fields",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "a text in quotes",
    "tuple_type": "a list",
}
"""What pydantic's error types ask for, in the words of a TOML file."""


def load_config(path: str | Path, overrides: Sequence[str] = (), *, prog: str = "cxr-jax train CONFIG") -> Config:
    """Returns the experiment that TOML file `path` describes, changed by command-line options such as
    `--optimizer.learning-rate 0.02` or `--phases.0.epochs 3`.

    Prints the help of the options, with the file's values as defaults, and raises SystemExit(0) when `overrides`
    hold `--help`; `prog` is the command named there.

    Raises:
        UserError: the file is missing or malformed, a key, a type or a value is wrong there or in `overrides`, or one
            of `overrides` has no effect.
    """
    path = Path(path)
    config = config_of(read_toml(path), place=str(path))
    if not overrides:
        return config
    changed = parse(Config, overrides, prog=prog, default=config)
    # tyro knows nothing of pydantic's rules for types.
    checked = config_of(dataclasses.asdict(changed), place="the command line")
    refuse_without_effect(checked, overrides)
    return checked


def write_config(config: Config, path: str | Path) -> None:
    """Writes every field of `config` to TOML file `path`, atomically; `load_config` reads the same config back."""
    write_text(path, format_config(config))


def format_config(config: Config) -> str:
    """Returns every field of `config` as TOML text; what a phase leaves out is left out."""
    tables = {name: value for name, value in dataclasses.asdict(config).items() if name != "phases"}
    lines = [line for name, fields in tables.items() for line in _format_table(f"[{name}]", fields)]
    for phase in config.phases:
        fields = dataclasses.asdict(phase)
        nested = {name: value for name, value in fields.items() if isinstance(value, Mapping)}
        flat = {name: value for name, value in fields.items() if value is not None and name not in nested}
        lines += _format_table("[[phases]]", flat)
        for name, value in nested.items():
            lines += _format_table(f"[phases.{name}]", value)
    return "\n".join(lines[1:]) + "\n"


def _format_table(header: str, fields: Mapping[str, Any]) -> list[str]:
    return ["", header, *(f"{name} = {_format_value(value)}" for name, value in fields.items())]


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


def config_of(values: Mapping[str, Any], place: str) -> Config:
    """Returns the config of `values`, as `read_toml` gives them; `place` says where they stand.

    Raises:
        UserError: a key, a type or a value is wrong.
    """
    import pydantic

    # pydantic is strict about types, yet takes lists for tuples, only when it reads JSON: from Python objects `true`
    # would pass as an integer. TOML's dates, which JSON has no word for, must not turn into valid texts.
    values = with_new_names(values, place)
    try:
        text = json.dumps(values, default=lambda date: {"date": str(date)})
    except (RecursionError, ValueError):
        raise UserError(f"{place} is no config: a value in it is nested too deeply or has too many digits") from None
    try:
        return _adapter().validate_json(text, strict=True)
    except pydantic.ValidationError as mistakes:
        first, *others = mistakes.errors(include_url=False)
        more = f" (and {len(others)} more mistake{'s' if len(others) > 1 else ''})" if others else ""
        raise UserError(_describe(first, place) + more) from None


@functools.cache
def _adapter() -> pydantic.TypeAdapter[Config]:
    """Returns what checks a config; it takes far longer to build than to use."""
    import pydantic

    return pydantic.TypeAdapter(Config)


def _describe(mistake: ErrorDetails, place: str) -> str:
    """Returns one of pydantic's findings as a sentence that names the field, the place and the way out."""
    kind, loc = mistake["type"], mistake["loc"]
    name = ".".join(str(part) for part in loc)
    if kind == "unexpected_keyword_argument":
        return f"{name} in {place} is unknown{suggestion(str(loc[-1]), _fields_beside(loc))}"
    if kind == "json_invalid":
        return f"{place} holds text that is not valid Unicode"
    if kind == "value_error":
        # The message begins with the field's own name; loc ends at its section.
        field, _, rest = str(mistake["ctx"]["error"]).partition(" ")
        return f"{'.'.join(filter(None, (name, field)))} in {place} {rest}"
    expected = f"one of {mistake['ctx']['expected']}" if kind == "literal_error" else _EXPECTED.get(kind)
    value = json.dumps(mistake["input"], ensure_ascii=False)
    found = value if len(value) <= 60 else value[:60] + "..."
    if expected is None:
        return f"{name} in {place} is {found}: {mistake['msg']}"
    return f"{name} in {place} is {found}, but must be {expected}"


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Returns a question with the nearest of `valid` names, or nothing when none is near."""
    nearest = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _fields_beside(loc: Sequence[str | int]) -> list[str]:
    """Returns the valid names where `loc` points: fields of the dataclass that holds its last part."""
    kind: Any = Config
    for part in loc[:-1]:
        hint = typing.get_args(kind)[0] if isinstance(part, int) else typing.get_type_hints(kind)[part]
        # X | None
        kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
    return [field.name for field in dataclasses.fields(kind)]
