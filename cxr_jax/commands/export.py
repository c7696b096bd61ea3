"""`cxr-jax export RUN OUT`: a trained network as a folder that works without JAX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cxr_jax.config.command_line import Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import DISCLAIMER

if TYPE_CHECKING:
    from cxr_jax.bundle.record import Rounding
    from cxr_jax.export.write import RealImages
    from cxr_jax.runs.folder import RunFolder

SUMMARY = "write a trained network as a folder that works without JAX: ONNX, StableHLO, model card"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: Annotated[str, Positional("RUN")] = ""  # folder of a trained run, or of an ensemble
    out: Annotated[str, Positional("OUT")] = ""  # the folder that is written
    checkpoint: Literal["", "best", "last"] = ""  # which state of the run; by default the one that its config names
    check: bool = False  # compare it with the run on all validation images too, in every runtime that is installed
    # write the network in 8 bits too, calibrated on training images, and say what it loses on validation
    int8: bool = False
    half: bool = False  # store weights in half precision, which halves the file; there is no StableHLO then
    replace: bool = False  # replace a bundle that stands in OUT


def main(arguments: list[str]) -> None:
    """Exports the run that `arguments` name; UserError if it cannot be restored or exported."""
    options = parse(Options, arguments, prog="cxr-jax export", description=SUMMARY)
    if not options.run or not options.out:
        raise UserError("name a run and the folder to write: cxr-jax export RUN OUT", EXIT_USAGE)
    if options.half and options.int8:
        raise UserError("--half and --int8 exclude each other: export the run twice, into two folders", EXIT_USAGE)
    terminal = Terminal()
    terminal.say(f"Exporting {options.run}")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError("export needs onnx and onnxruntime: pip install 'cxr-jax[export]'") from error
    from cxr_jax.runs.folder import RunFolder

    run, out = RunFolder.open(options.run), Path(options.out)
    with terminal.waiting("Starting JAX"):
        from cxr_jax.bundle.record import BUNDLE_FILE, CARD_FILE
        from cxr_jax.export.write import export_run
        from cxr_jax.runs.files import require_free

    require_free(out, "bundle", BUNDLE_FILE, replace=options.replace)
    real = _real_images(run, options, terminal) if options.check or options.int8 else None
    bundle, difference = export_run(
        run,
        out,
        which=options.checkpoint or None,
        replace=options.replace,
        real=real,
        half=options.half,
        waiting=terminal.waiting,
        track=terminal.track,
    )
    for content in bundle.files:
        terminal.say(f"{out / content.name}: {content.bytes / 1e6:.1f} MB")
    terminal.say(f"On random images its probabilities differ from those of the run by {difference:.1e} at most.")
    for check in bundle.runtimes:
        terminal.say(
            f"On {check.images:,} validation images, {check.runtime}, batches of {check.batch_size}: they differ by "
            f"{check.largest_difference:.1e} at most."
        )
    if bundle.half is not None:
        _print_loss("With weights of half precision", bundle.half, terminal)
    if bundle.int8 is not None:
        told = f"In 8 bits, calibrated on {bundle.int8.calibration_images} training images"
        _print_loss(told, bundle.int8, terminal)
    terminal.say(f"Model card: {out / CARD_FILE}")
    terminal.say(f"Next: {as_typed('cxr-jax', 'predict', out)} FILES...")
    terminal.say(DISCLAIMER)


def _print_loss(network: str, loss: Rounding, terminal: Terminal) -> None:
    """Prints what a network in fewer bits loses on validation."""
    other = "" if loss.other_calls is None else f", {loss.other_calls} of them called otherwise"
    terminal.say(
        f"{network}: AUC {loss.roc_auc:.4f} on {loss.images:,} validation images{other} ({loss.roc_auc_float32:.4f} in "
        "float32)."
    )


def _real_images(run: RunFolder, options: Options, terminal: Terminal) -> RealImages:
    """Returns the validation images of a run, and, for a network in 8 bits, some of training."""
    from cxr_jax.config.loading import load_config
    from cxr_jax.data.prepared import open_data_of_run
    from cxr_jax.data.split_loading import load_split
    from cxr_jax.export.quantise import CALIBRATION_IMAGES
    from cxr_jax.export.write import RealImages

    config, prepared = load_config(run.config), open_data_of_run(run)
    if config.data.validation == "out_of_fold":
        raise UserError(f"--check and --int8 need validation images, and the networks of {run.path} saw all of them")
    validation = load_split(prepared, config.data, "val", track=terminal.track)
    if not options.int8:
        return RealImages(validation)
    import numpy as np

    training = load_split(prepared, config.data.of_radiographs(), "train", track=terminal.track, mapped=True)
    count = min(CALIBRATION_IMAGES, len(training))
    rows = np.random.default_rng(0).choice(len(training), count, replace=False)
    return RealImages(validation, np.stack([training.images[row] for row in sorted(rows)]))
