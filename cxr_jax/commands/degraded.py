"""`cxr-jax evaluate RUN --degraded`: what is left of a run's calls on degraded images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed

if TYPE_CHECKING:
    from cxr_jax.evaluation.robustness import Robustness
    from cxr_jax.runs.folder import RunFolder


def evaluate_degraded(run: RunFolder, *, on_test: bool, reference: str, terminal: Terminal) -> Robustness:
    """Measures a run on its degraded validation images, or on test, which is one look more; stores record and figure.

    Raises:
        UserError: the run is an ensemble or was not evaluated, its data or the reference cannot be read, or these are
            of other images.
    """
    from cxr_jax.config.loading import load_config
    from cxr_jax.data.prepared import open_data_of_run
    from cxr_jax.data.split_loading import load_split
    from cxr_jax.evaluation.robustness import read_robustness, write_robustness
    from cxr_jax.reporting.robustness_figure import draw_robustness
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import evaluating

    split: Literal["val", "test"] = "test" if on_test else "val"
    config, prepared = load_config(run.config), open_data_of_run(run)
    if not run.operating_point.is_file():
        raise UserError(
            f"{run.path} has no threshold yet, at which degraded images could be called: "
            f"{as_typed('cxr-jax', 'evaluate', run.path)} fixes it"
        )
    compared = None
    if reference:
        other = RunFolder.open(reference)
        compared = (other.name, read_robustness(other.robustness_of(split)))
    if config.data.validation == "out_of_fold" and split == "val":
        raise UserError(f"{run.path} has no validation images of its own: degrade those of one of its members")
    with evaluating(run):
        with terminal.waiting("Loading the network"):
            from cxr_jax.inference.degraded import measure_robustness
            from cxr_jax.inference.looks import record_degraded_look
            from cxr_jax.inference.restore import restore_run

            trained = restore_run(run)
        images = load_split(prepared, config.data, split, track=terminal.track)
        batch_size = config.training.evaluation_batch_size
        robustness = measure_robustness(
            trained, images, split, reference=compared, batch_size=batch_size, track=terminal.track
        )
        if on_test:
            # before anything of test can be seen, so that no look goes uncounted
            record_degraded_look(run, config, prepared, trained, robustness)
        write_robustness(run.robustness_of(split), robustness)
        draw_robustness(run.figures, robustness, f"robustness_{split}")
    return robustness


def print_robustness(terminal: Terminal, run: RunFolder, robustness: Robustness) -> None:
    """Prints the rates of every kind, the one number that sums them up, and where record and figure are."""
    from cxr_jax.reporting.robustness import robustness_rows
    from cxr_jax.vocabulary import DISCLAIMER

    for line in robustness_rows(robustness):
        terminal.say(line)
    if robustness.mean_corruption_error is not None:
        terminal.say(
            f"Mean corruption error relative to {robustness.reference}: {robustness.mean_corruption_error:.1%} "
            "(below 100 %: less is lost)"
        )
    terminal.say(f"Record: {run.robustness_of(robustness.split)}")
    terminal.say(f"Figure: {run.figures / f'robustness_{robustness.split}.png'}")
    terminal.say(DISCLAIMER)


def require_degraded_options(
    runs: tuple[str, ...], *, degraded: bool, test: bool, reference: str, others: bool
) -> None:
    """Raises UserError for options of degraded images that say too little or contradict each other."""
    if not degraded and (test or reference):
        option = "--test" if test else "--reference"
        raise UserError(f"{option} is for --degraded: add that", EXIT_USAGE)
    if degraded and len(runs) != 1:
        raise UserError("--degraded measures one run: name one", EXIT_USAGE)
    if degraded and others:
        raise UserError("--degraded goes with --test and --reference alone", EXIT_USAGE)
