"""Pages of the documentation's site that are made of what is there: README, notebook, parsers and docstrings."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import typing
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages."""
    pages = {
        "index.md": _home(),
        "python.md": _notebook(ROOT / "docs" / "python.ipynb"),
        "reference/commands.md": _commands(),
        "reference/config.md": _config(),
        "reference/python.md": _python(),
    }
    if (notebook := files.get_file_from_path("python.ipynb")) is not None:
        files.remove(notebook)
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns a page whose links out of docs, to files that the site does not have, are plain text."""
    return re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)


def _home() -> str:
    """Returns the README, whose links begin at the root of the checkout."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"<p>\n.*?</p>\n", "", text, flags=re.DOTALL)
    text = re.sub(r"\]\(docs/", "](", text).replace("](python.ipynb)", "](python.md)")
    return re.sub(r"\[([^\]]+)\]\((?:results/[^)]*|LICENSE|CITATION\.cff)\)", r"\1", text)


def _notebook(path: Path) -> str:
    """Returns the cells of a notebook as a page."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"


def _commands() -> str:
    """Returns what `--help` prints of every command."""
    from cxr_jax.commands import GROUPS

    parts = ["# Commands", "What `cxr-jax COMMAND --help` prints."]
    for title, commands in GROUPS.items():
        parts.append(f"## {title}")
        parts += [f"### {name}\n\n```text\n{_help(name)}\n```" for name in commands]
    return "\n\n".join(parts) + "\n"


def _config() -> str:
    """Returns every field of a config as tables, one for each section, from the schema itself."""
    from cxr_jax.config.data import ReplayConfig
    from cxr_jax.config.schema import Config, PhaseConfig

    intro = (
        "A config is a TOML file. Its sections and their fields are below, with what a field has that the file leaves\n"
        "out. Every field is an option of `cxr-jax train`, too: `--optimizer.learning-rate 0.02` is\n"
        "`learning_rate = 0.02` in the section `[optimizer]`. `cxr-jax train CONFIG --help` shows what a config holds."
    )
    sections = [field for field in dataclasses.fields(Config) if field.name != "phases"]
    parts = ["# Config", intro]
    parts += [_section(f"[{field.name}]", field.default_factory) for field in sections]
    parts += [_section("[data.replay]", ReplayConfig), _section("[[phases]]", PhaseConfig)]
    return "\n\n".join(parts) + "\n"


def _section(title: str, kind: type) -> str:
    """Returns the table of a section of the config, whose fields those of dataclass `kind` are."""
    from cxr_jax.config.command_line import comments_of

    about, hints, comments = " ".join(kind.__doc__.split()), typing.get_type_hints(kind), comments_of(kind)
    rows = []
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            default = "its own"
        else:
            # of a phase, which then takes it from the section of the config
            default = "from the section" if field.default is None else f"`{json.dumps(field.default)}`"
        rows.append((f"`{field.name}`", _values(hints[field.name]), default, comments.get(field.name, "")))
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    head = "| field | values | default | meaning |\n| --- | --- | --- | --- |"
    return f"## `{title}`\n\n{about}\n\n{head}\n" + "\n".join(f"| {line} |" for line in lines)


def _values(hint: Any) -> str:
    """Returns which values a field of that type has."""
    of_it = typing.get_args(hint)
    if type(None) in of_it:
        return _values(next(entry for entry in of_it if entry is not type(None)))
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f'`"{value}"`' for value in of_it)
    if typing.get_origin(hint) is tuple:
        return f"list of {_values(of_it[0])}"
    if dataclasses.is_dataclass(hint):
        return "the fields of that section"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[hint]


def _python() -> str:
    """Returns the surface for Python, which mkdocstrings fills in."""
    heading = "    options: {show_root_heading: true}"
    return f"# Python\n\n::: cxr_jax.api\n\n::: cxr_jax.serving.model\n\n::: cxr_jax.serving.maps.HeatMap\n{heading}\n"


def _help(name: str, *arguments: str) -> str:
    os.environ["COLUMNS"] = "100"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        importlib.import_module(f"cxr_jax.commands.{name.replace('-', '_')}").main([*arguments, "--help"])
    return printed.getvalue().strip()
