"""Frozen dataclasses as JSON and back: one way to write them, one to read them, with errors that name the place."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from cxr_jax.errors import UserError
from cxr_jax.runs.folder import read_json

Record = TypeVar("Record")


def to_json(value: Any) -> Any:
    """Returns a record, or a dictionary or sequence of records, as objects, lists and plain values for JSON.

    A class whose JSON is laid out otherwise than its fields has a method `as_json`, and `from_json` to read it back.
    """
    if hasattr(value, "as_json"):
        return value.as_json()
    if dataclasses.is_dataclass(value):
        return fields_to_json(value)
    if isinstance(value, dict):
        return {name: to_json(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(entry) for entry in value]
    return value


def fields_to_json(record: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass for JSON, in their order."""
    return {field.name: to_json(getattr(record, field.name)) for field in dataclasses.fields(record)}


def from_json(kind: type[Record], value: Any, where: str = "it") -> Record:
    """Returns the record of class `kind` that `to_json` gave `value` for.

    A field with a default may be missing, as in files of earlier versions. Names that the class does not have are
    ignored.

    Args:
        kind: a dataclass of plain values, records, `dict[str, X]`, `tuple[X, ...]` and `X | None`.
        value: what JSON gave.
        where: what errors call it.

    Raises:
        ValueError: something is missing or of another kind; the place is named.
    """
    return _read(kind, value, where)


def read_record(
    path: str | Path, kind: type[Record], *, version: int, oldest: int | None = None, where: str, advice: str
) -> Record:
    """Reads the record of class `kind` that a JSON file holds beside its `schema_version`.

    The version may be any from `oldest` to `version`; without `oldest` it must be that very one. `where` is what errors
    call it, `advice` what to do about a file that cannot be read.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    value = read_json(path)
    if value.get("schema_version") not in range(version if oldest is None else oldest, version + 1):
        raise UserError(f"{path} was written by another version of cxr_jax: {advice}")
    try:
        return from_json(kind, value, where)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): {advice}") from error


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (known,) = (entry for entry in inner if entry is not types.NoneType)
        return None if value is None else _read(known, value, where)
    if origin is dict:
        return {name: _read(inner[1], entry, f"{where}.{name}") for name, entry in _require(value, dict, where).items()}
    if origin is tuple:
        return tuple(_read(inner[0], entry, f"{where}[{i}]") for i, entry in enumerate(_require(value, list, where)))
    if origin is typing.Literal:
        if value not in inner:
            raise ValueError(f"{where} is {value!r}, not one of {', '.join(map(repr, inner))}")
        return value
    if hasattr(kind, "from_json"):
        return kind.from_json(value)
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, _require(value, dict, where), where)
    if kind is float:
        return float(_require(value, (int, float), where))
    return _require(value, kind, where)


def _read_fields(kind: Any, value: dict[str, Any], where: str) -> Any:
    known = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            known[field.name] = _read(_hints(kind)[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where} has no {field.name}")
    return kind(**known)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _require(value: Any, kinds: Any, where: str) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise ValueError(f"{where} is {value!r:.60}, not of type {names}")
    return value
