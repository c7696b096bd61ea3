"""Pages of the documentation's site that are made of what is there: README, notebook, parsers and docstrings."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
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
    """Returns every field of a config, as an option of `train`."""
    intro = (
        "Every field of a config is an option of `cxr-jax train`: `--optimizer.learning-rate 0.02` is\n"
        "`learning_rate = 0.02` in the section `[optimizer]` of a TOML file. The defaults below are those of the\n"
        "config `quickstart`."
    )
    return f"# Config\n\n{intro}\n\n```text\n{_help('train', 'quickstart')}\n```\n"


def _python() -> str:
    """Returns the surface for Python, which mkdocstrings fills in."""
    heading = "    options: {show_root_heading: true}"
    return f"# Python\n\n::: cxr_jax.api\n\n::: cxr_jax.serving.maps.HeatMap\n{heading}\n"


def _help(name: str, *arguments: str) -> str:
    os.environ["COLUMNS"] = "100"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        importlib.import_module(f"cxr_jax.commands.{name.replace('-', '_')}").main([*arguments, "--help"])
    return printed.getvalue().strip()
