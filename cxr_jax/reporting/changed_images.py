"""`evaluate RUN --degraded` and `--occluded`: measured, stored, drawn, and told in the terminal."""

from __future__ import annotations

from cxr_jax.inference.degraded import evaluate_degraded
from cxr_jax.inference.occluded import evaluate_occluded
from cxr_jax.reporting.occlusion import occlusion_rows
from cxr_jax.reporting.report import write_report_anew
from cxr_jax.reporting.robustness import robustness_rows
from cxr_jax.reporting.robustness_figure import draw_robustness
from cxr_jax.runs.folder import RunFolder
from cxr_jax.terminal import Terminal


def tell_degraded(run: RunFolder, terminal: Terminal, *, on_test: bool, reference: str) -> None:
    """Measures a run on degraded images, stores record and figure, and prints what is left; UserError as there."""
    found = evaluate_degraded(run, on_test=on_test, reference=reference, track=terminal.track)
    figure, _ = draw_robustness(run.figures, found, f"robustness_{found.split}")
    for line in robustness_rows(found):
        terminal.say(line)
    terminal.say(f"Record: {run.robustness_of(found.split)}\nFigure: {figure}")
    _write_report(run, terminal)


def tell_occluded(run: RunFolder, terminal: Terminal, *, on_test: bool) -> None:
    """Shows a run regions of images, stores the record, and prints what is left; UserError as there."""
    found = evaluate_occluded(run, on_test=on_test, track=terminal.track)
    for line in occlusion_rows(found):
        terminal.say(line)
    terminal.say(f"Record: {run.occlusion_of(found.split)}")
    _write_report(run, terminal)


def _write_report(run: RunFolder, terminal: Terminal) -> None:
    if report := write_report_anew(run):
        terminal.say(f"Report: {report}")
