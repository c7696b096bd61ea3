"""Which run folders and tables belong to one recipe: runs that differ in their seed alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.errors import UserError
from cxr_jax.runs.folder import RunFolder

_SEED = re.compile(r"[-_.]?seed[-_]?(\d+)$")


@dataclass(frozen=True)
class RecipeFiles:
    """A recipe by its name, and the run folder or predictions table (CSV) of every seed."""

    name: str
    paths: tuple[Path, ...]


def recipe_of(path: Path) -> Path:
    """Returns the path of a run or table without its seed, which is equal for all seeds of a recipe.

    That is the path without `seed` and a number at its end, or the folder above if nothing else is left of the name.
    """
    path = path.resolve()
    stem = path.stem if path.is_file() else path.name
    rest = _SEED.sub("", stem)
    return path.parent / rest if rest else path.parent


def recipe_names(paths: Sequence[Path]) -> list[str]:
    """Returns the name of the recipe of each run: that of its folder, or of all with folders above if two are alike.

    Runs of one recipe have one name.
    """
    folders = [recipe_of(path) for path in paths]
    for count in range(1, max((len(folder.parts) for folder in folders), default=1) + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(names)) == len(set(folders)):
            break
    return names


def find_recipes(arguments: Sequence[str]) -> list[RecipeFiles]:
    """Returns the recipes that command-line arguments name, in their order, seeds by number.

    An argument is a predictions table (CSV), the folder of a run, or a folder that holds runs or tables `seed*.csv` at
    any depth. Runs and tables whose paths differ in the seed alone are one recipe, named after its folder, and from a
    folder of several after the path below that. `NAME=PATH` gives the one recipe at PATH a name of its own.

    Raises:
        UserError: nothing is there, a name does not fit one recipe, or a name or a path is given twice.
    """
    recipes: list[tuple[str, list[Path]]] = []
    unnamed: dict[Path, list[Path]] = {}
    for argument in arguments:
        name, path = _split(argument)
        found = _find(path)
        if name is not None and len(found) > 1:
            several = ", ".join(_derived_name(key, path) for key in found)
            raise UserError(f"{path} holds several recipes ({several}), which cannot all be called {name}: name each")
        for key, paths in found.items():
            if name is not None:
                recipes.append((name, paths))
            elif key in unnamed:
                unnamed[key] += paths
            else:
                unnamed[key] = paths
                recipes.append((_derived_name(key, path), paths))
    _check_unique(recipes)
    return [RecipeFiles(name, tuple(sorted(paths, key=_seed_order))) for name, paths in recipes]


def _split(argument: str) -> tuple[str | None, Path]:
    """Returns name and path of `NAME=PATH`, or no name and the path; a path that exists is never taken apart."""
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists():
        return None, Path(argument)
    if not name.strip() or not path:
        raise UserError(f"{argument!r} is neither a path nor NAME=PATH")
    return name.strip(), Path(path)


def _find(path: Path) -> dict[Path, list[Path]]:
    """Returns the runs and tables at `path` by `recipe_of` them."""
    if not path.exists():
        raise UserError(f"there is no run, table or folder of them at {path}")
    members = [path] if path.is_file() or _is_run(path) else _below(path)
    if not members:
        raise UserError(f"{path} holds no run and no table seed*.csv: name a run folder, a table or a folder of runs")
    found: dict[Path, list[Path]] = {}
    for member in members:
        found.setdefault(recipe_of(member), []).append(member)
    return found


def _is_run(path: Path) -> bool:
    """Returns True for the folder of a run, trained here or judged from a table."""
    run = RunFolder(path)
    return run.config.is_file() or run.predictions_of("test").is_file()


def _below(folder: Path) -> list[Path]:
    """Returns the runs and tables of seeds below a folder that is no run. The content of a run belongs to that run."""
    if _is_run(folder):
        return [folder]
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            found += _below(entry)
        elif entry.suffix == ".csv" and _SEED.search(entry.stem):
            found.append(entry)
    return found


def _derived_name(key: Path, argument: Path) -> str:
    """Returns the path of a recipe below the argument that it was found by, or its own name."""
    argument = argument.resolve()
    if argument.is_file() and key.parent.name == RunFolder(argument).predictions.name:
        # The table inside a run is called test.csv in every run.
        return recipe_of(argument.parent.parent).name
    if key != argument and key.is_relative_to(argument):
        return key.relative_to(argument).as_posix()
    return key.name


def _seed_order(path: Path) -> tuple[int, str]:
    match = _SEED.search(path.resolve().stem if path.is_file() else path.resolve().name)
    return (int(match.group(1)) if match else -1, str(path))


def _check_unique(recipes: Sequence[tuple[str, list[Path]]]) -> None:
    names = [name for name, _ in recipes]
    for name in names:
        if names.count(name) > 1:
            places = " and ".join(str(paths[0]) for other, paths in recipes if other == name)
            raise UserError(f"{places} would both be called {name}: give them names, as NAME=PATH")
    given = [path.resolve() for _, paths in recipes for path in paths]
    for path in given:
        if given.count(path) > 1:
            raise UserError(f"{path} is named twice: name every run once")
