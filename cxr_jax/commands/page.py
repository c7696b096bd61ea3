"""`cxr-jax page [BUNDLE] OUT`: an exported network as a page that any browser predicts by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER

SUMMARY = "write an exported network as a page that predicts in any browser, where images stay"

PHANTOMS = 12
FEWEST_PHANTOMS, MOST_PHANTOMS = 6, 99


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # folder that cxr-jax export wrote; without it the network that comes with the package is taken
    bundle: Annotated[str, Positional("[BUNDLE]")] = ""
    out: Annotated[str, Positional("OUT")] = ""  # the folder that is written
    # chests that are drawn for the teaching mode, 0 for none; by default 12 of NORMAL and PNEUMONIA, none of others
    phantoms: Annotated[int | None, Option("COUNT")] = None
    replace: bool = False  # replace a page that stands in OUT


def main(arguments: list[str]) -> None:
    """Writes the page that `arguments` ask for; UserError if the bundle cannot be used or OUT holds something else."""
    options = parse(Options, arguments, prog="cxr-jax page", description=SUMMARY)
    if not options.bundle:
        raise UserError("name a bundle and the folder to write: cxr-jax page BUNDLE OUT", EXIT_USAGE)
    if options.phantoms and not FEWEST_PHANTOMS <= options.phantoms <= MOST_PHANTOMS:
        raise UserError(
            f"--phantoms is {options.phantoms}, but must be 0, or from {FEWEST_PHANTOMS} to {MOST_PHANTOMS}", EXIT_USAGE
        )
    from cxr_jax.bundle.record import is_bundle, read_bundle
    from cxr_jax.bundle.starter import STARTER, name_of
    from cxr_jax.runs.description import require_unclarified, require_uncropped
    from cxr_jax.runs.files import at_home

    if not options.out and is_bundle(options.bundle):
        raise UserError("name the folder to write, too: cxr-jax page BUNDLE OUT", EXIT_USAGE)
    source = at_home(options.bundle) if options.out else STARTER
    out = at_home(options.out or options.bundle)
    terminal = Terminal()
    bundle = read_bundle(source)
    usual = bundle.network.classes == CLASS_NAMES
    if options.phantoms and not usual:
        raise UserError(
            f"--phantoms draws chests of {' and '.join(CLASS_NAMES)}, and the network tells other classes: leave it "
            "out",
            EXIT_USAGE,
        )
    phantoms = options.phantoms if options.phantoms is not None else PHANTOMS if usual else 0
    require_uncropped([bundle.network], "cxr-jax page")
    require_unclarified([bundle.network], "cxr-jax page")
    with terminal.waiting(f"Writing the page of {source if options.out else 'the starter network'}"):
        from cxr_jax.page.record import Limits
        from cxr_jax.page.write import write_page
        from cxr_jax.serving.radiograph import LARGEST_ASPECT, LARGEST_COLOUR, SMALLEST_CONTRAST

        write_page(
            source,
            bundle,
            out,
            name=name_of(source, bundle),
            limits=Limits(LARGEST_ASPECT, SMALLEST_CONTRAST, LARGEST_COLOUR),
            phantoms=phantoms,
            replace=options.replace,
        )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    terminal.say(f"{out}: {size / 1e6:.1f} MB, to be put on any web server. Images stay in the browser that shows it.")
    terminal.say(f"Next: {as_typed('python', '-m', 'http.server', '--directory', Path(out))}")
    terminal.say("and open http://localhost:8000. Opened as a file, a browser does not run it.")
    terminal.say(DISCLAIMER)
