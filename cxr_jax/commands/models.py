"""`cxr-jax models`: the architectures, their size, the images that they expect, and where to get weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal

if TYPE_CHECKING:
    from rich.table import Table

SUMMARY = "list the networks, their size and known weights"

NOTE = """\
Parameters are counted with {classes} classes. Multiply-adds are half the floating-point operations that XLA's cost
analysis counts in the forward pass of one image of the size under train, in evaluation mode and with plain
convolutions; elementwise work is in it. A name and a tag such as tf_efficientnetv2_s.in21k_ft_in1k make what
cxr-jax port takes.
"""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    classes: int = 1000  # with which parameters and multiply-adds are counted


def main(arguments: list[str]) -> None:
    """Prints a table of the architectures; UserError for an unknown option."""
    options = parse(Options, arguments, prog="cxr-jax models", description=SUMMARY)
    if options.classes < 1:
        raise UserError(f"--classes is {options.classes}, but must be 1 or more", EXIT_USAGE)

    # what is shown meanwhile keeps out of a pipe that the names go into
    with Terminal(on_standard_error=True).waiting("Loading the networks"):
        table = _table(options.classes)
    terminal = Terminal()
    terminal.show(table)
    terminal.say(NOTE.format(classes=options.classes).rstrip())


def _table(classes: int) -> Table:
    """Returns every architecture with its size, its images and its weights."""
    from rich.table import Table

    from cxr_jax.models.registry import ARCHITECTURES
    from cxr_jax.models.size import size_of

    table = Table("name", "parameters", "multiply-adds", "train px", "judged px", "known weights")
    for column in table.columns[1:5]:
        column.justify = "right"
    for name, architecture in ARCHITECTURES.items():
        size = size_of(name, classes=classes)
        table.add_row(
            name,
            f"{size.parameters:,}",
            f"{size.multiply_adds / 1e9:.2f} G",
            str(architecture.image_size),
            str(architecture.evaluation_size),
            ", ".join(architecture.weights) or "-",
        )
    return table
