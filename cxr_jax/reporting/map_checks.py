"""`explain RUN --check`: the checks of maps, made, stored, drawn, and told in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.data.split_loading import load_split, masks_of_split
from cxr_jax.explain.checks import check_maps, make_sample
from cxr_jax.explain.record import write_checks
from cxr_jax.inference.restore import TrainedModel, restore_run
from cxr_jax.reporting.explanations import checks_table, draw_checks, overlap_text
from cxr_jax.reporting.report import write_report_anew
from cxr_jax.runs.folder import RunFolder
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import DISCLAIMER


def tell_checks(
    run: RunFolder,
    trained: TrainedModel,
    terminal: Terminal,
    *,
    threshold: float | None,
    stage: str,
    images: int,
    seeds: Sequence[str],
    explained: str,
) -> None:
    """Checks the maps on validation; stores, draws and prints what was found, and writes a report anew that exists.

    Args:
        run: whose maps they are.
        trained: its network.
        terminal: where it is told.
        threshold: from which PNEUMONIA is called; None of other classes, and of findings.
        stage: at which maps are made.
        images: how many maps are checked.
        seeds: folders of other runs that the maps should agree with.
        explained: the class or finding; empty: the one that is called, or the one of the highest probability.

    Raises:
        UserError: another run is not like this one, or data cannot be read.
    """
    others = [restore_run(RunFolder.open(path)) for path in seeds]
    prepared, data = open_data_of_run(run), load_config(run.config).data
    validation = load_split(prepared, data, "val", track=terminal.track)
    masks = None
    if prepared.masks is not None and data.crop == "none":
        masks = masks_of_split(prepared, data, "val", "cxr-jax explain", track=terminal.track)
    label = trained.description.classes.index(explained) if explained else None
    sample = make_sample(trained, validation, images, threshold=threshold, explained=label, masks=masks)
    found = check_maps(trained, sample, stage, others=others, track=terminal.track)
    findings = found.record()
    path = write_checks(run, findings)
    if found.cascade is not None:
        examples = found.cascade.examples
        draw_checks(run.figures, findings, found.original[: len(examples)], examples)
    if report := write_report_anew(run):
        terminal.say(f"Report: {report}")
    terminal.show(checks_table(findings))
    for verdict in found.verdicts:
        terminal.say(f"{verdict.check.title}: {verdict.told}")
    if told := overlap_text(findings):
        terminal.say(told)
    terminal.say(f"Checks: {path}")
    terminal.say(DISCLAIMER)
