"""`cxr-jax phantoms FOLDER`: draw a data set that no person was X-rayed for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError

SUMMARY = "draw phantoms in the layout of the official data set"

SMALLEST_COUNT = 30


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    folder: Annotated[str, Positional("FOLDER")]  # a new or empty folder for train, val and test
    count: int = 900  # images in all: a quarter for test, up to 16 for val as in the official release, the rest train
    seed: int = 0  # the same seed and count give the same images
    smallest: int = 200  # lowest height of an image, in pixels
    largest: int = 400  # greatest height; images are up to half as wide again
    # several findings in an image, in the layout of NIH ChestX-ray14; a quarter of the images for test
    findings: bool = False
    masks: Annotated[str, Option("FOLDER")] = ""  # a new folder for the lungs that were drawn, a mask for each image


def main(arguments: list[str]) -> None:
    """Draws the phantoms that `arguments` ask for; UserError if the folder is not empty or a number is impossible."""
    options = parse(Options, arguments, prog="cxr-jax phantoms", description=SUMMARY)
    if options.count < SMALLEST_COUNT:
        raise UserError(f"--count is {options.count}, but must be at least {SMALLEST_COUNT}")
    if options.findings and options.masks:
        raise UserError("--masks and --findings exclude each other: give one", EXIT_USAGE)

    from cxr_jax.terminal import Terminal, as_typed

    terminal = Terminal()
    with terminal.waiting("Starting"):
        from cxr_jax.data.phantoms import write_phantom_findings, write_phantoms
        from cxr_jax.runs.files import at_home

    test = options.count // 4
    how = {"seed": options.seed, "image_size_range": (options.smallest, options.largest), "track": terminal.track}
    if options.findings:
        write_phantom_findings(at_home(options.folder), train=options.count - test, test=test, **how)
    else:
        val = min(16, options.count // 10)
        masks = at_home(options.masks) if options.masks else None
        write_phantoms(
            at_home(options.folder), train=options.count - test - val, val=val, test=test, masks=masks, **how
        )
    terminal.say(f"{options.count:,} phantoms in {options.folder}: drawn by a program, not radiographs of people.")
    masks = ("--masks", Path(options.masks)) if options.masks else ()
    terminal.say(f"Next: {as_typed('cxr-jax', 'prepare', Path(options.folder), *masks)}")
