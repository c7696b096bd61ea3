"""Fields of a config by dotted keys, such as `optimizer.learning_rate` or `phases.head.augmentation.gamma`.

A phase goes by its name; where a key is given, by its number from 0 too.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from cxr_jax.config.schema import Config, PhaseConfig
from cxr_jax.errors import UserError, suggestion

RENAMED = {
    "loss.focusing": "loss.focal_gamma",
    "training.average_decay": "training.ema_decay",
    "parallel.processes": "parallel.world_size",
    "parallel.process_id": "parallel.rank",
}
"""The key of today by that of earlier versions, which is taken as ever."""

_SECTIONS = {field.name for field in dataclasses.fields(Config)}

Tell = Callable[[str], None]
"""What is called with a sentence that a person should read."""


def silently(sentence: str) -> None:
    """Tells nobody."""


def dotted(tables: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Returns the values of nested tables under their dotted keys; a quoted key may hold dots of its own.

    Raises:
        UserError: two ways of writing one key give it two values; `place` says where they stand.
    """
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        inside = dotted(value, place) if isinstance(value, Mapping) else None
        entries = {name: value} if inside is None else {f"{name}.{key}": entry for key, entry in inside.items()}
        for key, entry in entries.items():
            if key in flat:
                raise UserError(f"{place} gives {key} twice: keep one")
            flat[key] = entry
    return flat


def values_of(config: Config) -> dict[str, Any]:
    """Returns every field of `config` by its dotted key; a section that a phase does not have is None."""
    tables = dataclasses.asdict(config)
    tables["phases"] = {phase["name"]: phase for phase in tables["phases"]}
    return dotted(tables, "the config")


def phase_names(tables: Mapping[str, Any]) -> list[str]:
    """Returns how the phases of a config's tables are called, also where these are wrong."""
    phases = tables.get("phases")
    return [
        str(phase.get("name", PhaseConfig.name)) if isinstance(phase, Mapping) else str(number)
        for number, phase in enumerate(phases if isinstance(phases, list) else ())
    ]


def with_new_names(changes: Mapping[str, Any], place: str, tell: Tell = silently) -> dict[str, Any]:
    """Returns `changes` with every dotted key as it is called today; `tell` gets a sentence for each older one.

    Raises:
        UserError: a key stands there under both of its names; `place` says where.
    """
    for old in changes.keys() & RENAMED.keys():
        if RENAMED[old] in changes:
            raise UserError(f"{place} gives {RENAMED[old]} twice, also by its old name {old}: keep {RENAMED[old]}")
        tell(f"{old} in {place} is called {RENAMED[old]} now")
    return {RENAMED.get(key, key): value for key, value in changes.items()}


def tables_with_new_names(tables: Mapping[str, Any], place: str, tell: Tell = silently) -> dict[str, Any]:
    """Returns the tables of a config, as a file gives them, with the names of today; else as `with_new_names`."""
    renamed = dict(tables)
    for section, fields in tables.items():
        if isinstance(fields, Mapping):
            named = with_new_names({f"{section}.{name}": value for name, value in fields.items()}, place, tell)
            renamed[section] = {key.removeprefix(f"{section}."): value for key, value in named.items()}
    return renamed


def overridden(tables: Mapping[str, Any], changes: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Returns the tables of a config with `changes` by dotted key; a phase goes by its name or its number from 0.

    A phase that takes a section from the config's own gets that section, changed: what a change does not name stays
    as it was. Keys and values are for `config_of` to check.

    Raises:
        UserError: a key names a phase that is not there, or goes through a value; `place` says where it stands.
    """
    values = copy.deepcopy(dict(tables))

    # sections first, because phases take from them, a list of phases before what changes one of them, and new names of
    # phases last
    def turn(key: str) -> tuple[bool, bool, bool]:
        return key.startswith("phases"), key.startswith("phases."), key.endswith(".name")

    for key in sorted(changes, key=turn):
        target, inside = values, key
        if key.startswith("phases."):
            target, inside = _phase(values, key, place)
            section, dot, _ = inside.partition(".")
            if dot and section not in target and section in _SECTIONS:
                target[section] = copy.deepcopy(values.get(section, {}))
        _set(target, inside, changes[key], f"{key} in {place}")
    return values


def _phase(values: Mapping[str, Any], key: str, place: str) -> tuple[dict[str, Any], str]:
    """Returns the phase that `key` reaches into, and what is left of the key."""
    phases = values.get("phases") or []
    if not isinstance(phases, list) or not all(isinstance(phase, dict) for phase in phases):
        raise UserError(f"{key} in {place} reaches into phases, which is no list of tables there")
    if not phases:
        raise UserError(f"{key} in {place} reaches into a phase, but the config has no [[phases]]: name the section")
    rest = key.removeprefix("phases.")
    names = phase_names(values)
    # a name may hold dots itself
    for name, phase in sorted(zip(names, phases, strict=True), key=lambda pair: -len(pair[0])):
        if rest.startswith(f"{name}.") and len(rest) > len(name) + 1:
            return phase, rest[len(name) + 1 :]
    number, _, inside = rest.partition(".")
    numbered = {str(place): phase for place, phase in enumerate(phases)}
    if number in numbered and inside:
        return numbered[number], inside
    raise UserError(
        f"{key} in {place} names no field of a phase{suggestion(number, names)}; the phases are {', '.join(names)}, "
        f"as in phases.{names[0]}.optimizer.learning_rate"
    )


def _set(table: dict[str, Any], key: str, value: Any, place: str) -> None:
    *sections, field = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UserError(f"{place} goes through {section}, which is a value and no section")
    # later changes may reach into a list of phases, which belongs to whoever gave it
    table[field] = copy.deepcopy(value)
