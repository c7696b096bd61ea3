"""`cxr-jax configs [NAME [OUT]]`: the configs that come with the program, and a copy of one to change."""

from dataclasses import dataclass
from typing import Annotated

from cxr_jax.config.command_line import Positional, parse

SUMMARY = "list the configs that come with the program, show one, or copy it for changes"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    name: Annotated[str, Positional("[NAME]")] = ""  # of one config, whose text is printed
    out: Annotated[str, Positional("[OUT]")] = ""  # the file to copy it to, in place of printing
    replace: bool = False  # replace OUT if it exists


def main(arguments: list[str]) -> None:
    """Prints or copies what `arguments` name; UserError for an unknown name, or a file that may not be replaced."""
    options = parse(Options, arguments, prog="cxr-jax configs", description=SUMMARY)

    from pathlib import Path

    from cxr_jax.config.shipped import folder, shipped_configs
    from cxr_jax.errors import UserError, suggestion
    from cxr_jax.runs.files import write_text
    from cxr_jax.terminal import Terminal

    terminal = Terminal()
    shipped = shipped_configs()
    if not options.name:
        _list(terminal, shipped, folder())
        return
    name = options.name.removesuffix(".toml")
    if name not in shipped:
        hint = suggestion(name, shipped) or "; cxr-jax configs lists them"
        raise UserError(f"no config called {options.name} comes with the program{hint}")
    if not options.out:
        print(shipped[name].text(), end="")
        return
    out = Path(options.out)
    out = out / f"{name}.toml" if out.is_dir() else out
    if out.exists() and not options.replace:
        raise UserError(f"{out} exists already; choose another name, or replace it by --replace")
    write_text(out, shipped[name].text())
    command = f"{shipped[name].command()} {out}" + (" --out FOLDER" if shipped[name].is_sweep else "")
    terminal.say(f"Copied to {out}. Next: change it, then cxr-jax {command}")


def _list(terminal: object, shipped: dict, folder: object) -> None:
    """Prints every config and sweep with what it is and on what it runs."""
    for is_sweep, title in ((False, "Configs, for cxr-jax COMMAND NAME:"), (True, "Sweeps, for cxr-jax sweep NAME:")):
        terminal.say(title)
        for config in shipped.values():
            if config.is_sweep == is_sweep:
                terminal.say(f"\n  {config.command()} {config.name}", "bold")
                terminal.say(f"    {config.about()}.\n    Hardware: {config.hardware()}.")
        terminal.say("")
    terminal.say(f"They are in {folder}. To change one: cxr-jax configs NAME mine.toml")
