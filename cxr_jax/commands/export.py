"""`cxr-jax export RUN OUT`: a trained network as a folder that works without JAX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cxr_jax.config.command_line import Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import DISCLAIMER

SUMMARY = "write a trained network as a folder that works without JAX: ONNX, StableHLO, model card"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: Annotated[str, Positional("RUN")] = ""  # folder of a trained run, or of an ensemble
    out: Annotated[str, Positional("OUT")] = ""  # the folder that is written
    checkpoint: Literal["", "best", "last"] = ""  # which state of the run; by default the one that its config names
    replace: bool = False  # replace a bundle that stands in OUT


def main(arguments: list[str]) -> None:
    """Exports the run that `arguments` name; UserError if it cannot be restored or exported."""
    options = parse(Options, arguments, prog="cxr-jax export", description=SUMMARY)
    if not options.run or not options.out:
        raise UserError("name a run and the folder to write: cxr-jax export RUN OUT", EXIT_USAGE)
    terminal = Terminal()
    terminal.say(f"Exporting {options.run}")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError("export needs onnx and onnxruntime: pip install 'cxr-jax[export]'") from error
    from cxr_jax.runs.folder import RunFolder

    run, out = RunFolder.open(options.run), Path(options.out)
    with terminal.waiting("Exporting the network"):
        from cxr_jax.bundle.record import CARD_FILE
        from cxr_jax.export.write import export_run

        bundle, difference = export_run(
            run, out, which=options.checkpoint or None, replace=options.replace, on_step=terminal.say
        )
    for content in bundle.files:
        terminal.say(f"{out / content.name}: {content.bytes / 1e6:.1f} MB")
    terminal.say(f"On random images its probabilities differ from those of the run by {difference:.1e} at most.")
    terminal.say(f"Model card: {out / CARD_FILE}")
    terminal.say(f"Next: {as_typed('cxr-jax', 'predict', out)} FILES...")
    terminal.say(DISCLAIMER)
