"""The configs and sweeps that come with the program: found by a bare name from any folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cxr_jax
from cxr_jax.errors import UserError, suggestion

SWEEPS = "sweeps"
"""Folder of the sweeps beside the configs."""

_PACKAGE = Path(cxr_jax.__file__).parent
_COMMAND = re.compile(r"cxr-jax (\w+) configs/")
_FACT = re.compile(r"(Command|Needs|Hardware|Expected result): +(.*)")


@dataclass(frozen=True)
class ShippedConfig:
    """A config or a sweep that comes with the program."""

    name: str  # without folder and suffix
    path: Path
    is_sweep: bool

    def text(self) -> str:
        """Returns the content of the file."""
        return self.path.read_text(encoding="utf-8")

    def about(self) -> str:
        """Returns the first sentence of the file's opening comment, which says what is trained."""
        opening = " ".join(self._opening()[0])
        return re.split(r"(?<=\.) ", opening, maxsplit=1)[0].rstrip(".")

    def command(self) -> str:
        """Returns the command that takes the file, such as train, as the opening comment says."""
        if found := _COMMAND.search(self._opening()[1].get("Command", "")):
            return found[1]
        return "sweep" if self.is_sweep else "train"

    def hardware(self) -> str:
        """Returns on what it ran and how long, as the opening comment says; empty where it does not."""
        return self._opening()[1].get("Hardware", "").rstrip(".")

    def _opening(self) -> tuple[list[str], dict[str, str]]:
        """Returns the comment's lines before its facts, and the facts (Command, Needs, ...) by their names."""
        about: list[str] = []
        facts: dict[str, str] = {}
        for line in self.text().split("\n\n", 1)[0].splitlines():
            words = line.removeprefix("#").strip()
            if match := _FACT.match(words):
                facts[match[1]] = match[2]
            elif facts:
                last = next(reversed(facts))
                facts[last] = f"{facts[last]} {words}"
            elif words:
                about.append(words)
        return about, facts


def folder() -> Path:
    """Returns the folder that holds the configs: in the installed package, or in the checkout that runs as it is."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def shipped_configs() -> dict[str, ShippedConfig]:
    """Returns all configs by name, followed by all sweeps."""
    paths = [*sorted(folder().glob("*.toml")), *sorted((folder() / SWEEPS).glob("*.toml"))]
    return {path.stem: ShippedConfig(path.stem, path, path.parent.name == SWEEPS) for path in paths}


def find_config(given: str | Path, beside: Path = Path(), *, sweep: bool = False) -> Path:
    """Returns the file that `given` means: a path relative to `beside`, or the name of a config that is shipped.

    A file goes before a shipped config: with `quickstart`, first the file of that name, then `quickstart.toml`, both
    in `beside`. With `sweep` the shipped sweeps are meant in place of the shipped configs.

    Raises:
        UserError: there is neither; told with what is near, and where the shipped ones are listed.
    """
    path = beside / given
    if path.is_file():
        return path
    bare = Path(given).name == str(given)
    if bare and path.suffix != ".toml" and (named := path.with_name(f"{path.name}.toml")).is_file():
        return named
    shipped = {name: entry for name, entry in shipped_configs().items() if entry.is_sweep == sweep}
    name = path.name.removesuffix(".toml")
    if bare and name in shipped:
        return shipped[name].path
    # anything that is there, a folder or a pipe, is told by whoever reads it
    if path.exists():
        return path
    raise UserError(_missing(path, name, shipped, sweep=sweep))


def _missing(path: Path, name: str, shipped: dict[str, ShippedConfig], *, sweep: bool) -> str:
    """Returns the sentence about a file that is not there."""
    kind, command = ("sweep", "sweep") if sweep else ("config", "train")
    beside = {str(other) for other in path.parent.glob("*.toml")}
    if name in shipped:
        hint = f"; cxr-jax {command} {name} takes the one that comes with the program"
    else:
        hint = suggestion(str(path), beside) or suggestion(name, shipped) or "; give the path of a TOML file, or a name"
    return f"there is no {kind} {path}{hint} (cxr-jax configs lists the names)"
