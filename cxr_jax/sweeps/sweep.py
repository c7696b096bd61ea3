"""A sweep: one base config, variants of it, and the seeds that each of them is trained with; read from TOML."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_jax.config.effect import without_effect
from cxr_jax.config.loading import config_of, read_tables, read_toml
from cxr_jax.config.overrides import Tell, dotted, overridden, silently, values_of, with_new_names
from cxr_jax.config.schema import Config
from cxr_jax.config.shipped import find_config
from cxr_jax.errors import UserError, suggestion

BASE = "base"
"""Name of the variant that every other is compared with."""

KEYS = ("config", "seeds", "base", "variants", "grid")
"""What a sweep file may hold."""

# Names become folders.
_NAME = re.compile(r"\w[\w.,=+-]{0,149}")
_SEED = "training.seed"


@dataclass(frozen=True)
class Variant:
    """One recipe of a sweep."""

    name: str
    changes: dict[str, Any]  # by dotted key, beyond those of [base]
    config: Config  # with its seed still that of the base config

    def with_seed(self, seed: int) -> Config:
        """Returns the config of one run."""
        return dataclasses.replace(self.config, training=dataclasses.replace(self.config.training, seed=seed))


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for."""

    path: Path
    config: Path  # of the base
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]  # the first is the base
    same_as_base: tuple[str, ...]  # points of the grid that are the base itself, which are not trained again

    @property
    def base(self) -> Variant:
        """The variant that every other is compared with."""
        return self.variants[0]


def read_sweep(path: str | Path, tell: Tell = silently) -> Sweep:
    """Returns the sweep that TOML file `path` describes, every config of it checked.

    Its keys are `config` (the base config: relative to the file, or the name of a shipped one), `seeds`, and tables
    `base` (changes of every run),
    `variants.NAME` (changes of one variant) and `grid` (lists, of which every combination is a variant). Changes are
    nested or dotted, as `overridden` takes them. `tell` gets a sentence for each key of an earlier version.

    Raises:
        UserError: the file or its base config is missing or malformed, a change is wrong or changes nothing that is
            trained, or two variants are the same.
    """
    path = Path(path)
    tables = read_toml(path)
    for key in tables:
        if key not in KEYS:
            raise UserError(f"{key} in {path} is unknown{suggestion(key, KEYS)}; a sweep has {', '.join(KEYS)}")
    base_path = _base_path(path, tables)
    values = read_tables(base_path, tell)
    config_of(values, str(base_path))
    base_place = f"[{BASE}] of {path}"
    shared = with_new_names(_changes(tables.get(BASE, {}), base_place), base_place, tell)
    base = Variant(BASE, {}, config_of(overridden(values, shared, base_place), base_place))
    seeds = _seeds(path, tables.get("seeds", [base.config.training.seed]), base)
    named, points = _named(path, tables.get("variants", {})), _points(path, tables.get("grid", {}))
    variants, same_as_base = [base], []
    names_of = {_trained(base.config): BASE}
    for name, (place, given) in _joined(path, named, points).items():
        changes = with_new_names(given, place, tell)
        config = config_of(overridden(values, {**shared, **changes}, place), place)
        same = names_of.setdefault(_trained(config), name)
        if same == name:
            variants.append(Variant(name, changes, config))
        elif same == BASE and name in points:
            same_as_base.append(name)
        else:
            raise UserError(_no_change(place, changes, same))
    return Sweep(path, base_path, seeds, tuple(variants), tuple(same_as_base))


def _base_path(path: Path, tables: Mapping[str, Any]) -> Path:
    name = tables.get("config")
    if not isinstance(name, str) or not name:
        raise UserError(f'{path} names no base config: write config = "CONFIG.toml", relative to {path.name}')
    return find_config(name, beside=path.parent)


def _changes(tables: Any, place: str) -> dict[str, Any]:
    """Returns the changes of one table by dotted key; they may not touch the seed, which has a list of its own."""
    if not isinstance(tables, Mapping):
        raise UserError(f"{place} is {json.dumps(tables, default=str)}, but must be a table of changes")
    changes = dotted(tables, place)
    if _SEED in changes:
        raise UserError(f"{_SEED} in {place} would undo seeds: list the seeds of the sweep there")
    return changes


def _seeds(path: Path, seeds: Any, base: Variant) -> tuple[int, ...]:
    whole = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
    if not whole or not seeds or len(set(seeds)) != len(seeds):
        raise UserError(f"seeds in {path} must be a list of different whole numbers, such as [0, 1, 2]")
    for seed in seeds:
        try:
            base.with_seed(seed)
        except ValueError as error:
            raise UserError(f"seeds in {path}: {error}") from None
    return tuple(seeds)


def _named(path: Path, tables: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Places and changes of every table below [variants]."""
    if not isinstance(tables, Mapping):
        raise UserError(f"variants in {path} must be tables, such as [variants.gamma]")
    found = {}
    for name, table in tables.items():
        place = f"[variants.{name}] of {path}"
        if name == BASE:
            raise UserError(f"{place} has the name of the base itself: write its changes into [{BASE}], or rename it")
        found[name] = (place, _changes(table, place))
    return found


def _points(path: Path, table: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Places and changes of every point of [grid], by its name."""
    place = f"[grid] of {path}"
    lists = _changes(table, place)
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{key} in {place} must be a list of the values to try")
    labels = _labels(tuple(lists))
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for values in itertools.product(*lists.values()) if lists else ():
        changes = dict(zip(lists, values, strict=True))
        name = ",".join(f"{labels[key]}={_text(value)}" for key, value in changes.items())
        if name in found:
            raise UserError(f"{place} has two points called {name}: list every value once")
        found[name] = (f"{place} at {name}", changes)
    return found


def _joined(path: Path, named: dict[str, Any], points: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns variants by name, those of [variants] first."""
    for name in points.keys() & named.keys():
        raise UserError(f"[variants.{name}] of {path} has the name of a point of [grid]: rename it")
    for name in (*named, *points):
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name!r} in {path} cannot name a variant, which becomes a folder: take at most 150 letters, digits "
                "and any of _ . , = + -"
                + (", and give long combinations names of their own in [variants]" if name in points else "")
            )
    return named | points


def _labels(keys: Sequence[str]) -> dict[str, str]:
    """Returns for every dotted key the shortest end of it, in whole parts, that no other key shares."""
    labels = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
        label = next(end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1)
        labels[key] = _text(label)
    return labels


def _text(value: Any) -> str:
    """Returns a value as part of a folder's name."""
    text = value if isinstance(value, str) else "+".join(map(str, value)) if isinstance(value, list) else None
    return re.sub(r"[^\w.+-]+", "_", json.dumps(value, default=str) if text is None else text)


def _trained(config: Config) -> frozenset[tuple[str, Any]]:
    """Returns the fields of `config` that bear on what is trained: two that give the same network have the same.

    Left out are where and how it is computed, and what has no effect, such as what every phase has of its own.
    """
    resolved = dataclasses.replace(config.computed_as(Config()), phases=config.resolved_phases())
    idle = without_effect(resolved)
    return frozenset((key, value) for key, value in values_of(resolved).items() if key not in idle)


def _no_change(place: str, changes: Mapping[str, Any], same: str) -> str:
    if same != BASE:
        return f"{place} trains the same as {same}: keep one of them"
    if not changes:
        return f"{place} is empty: say what it changes, or leave it out, as the base is trained anyway"
    keys = ", ".join(changes)
    return (
        f"{place} changes nothing that is trained: {keys} is as in the base already, has no effect beside its other "
        "fields, or every phase has a section of its own, reached as phases.NAME.SECTION.FIELD"
    )
