"""The part of a run that shows no radiograph, for a folder of results that anybody may read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.runs.continued import is_continued, read_continued, write_continued
from cxr_jax.runs.ensemble import is_ensemble, read_ensemble, write_ensemble
from cxr_jax.runs.files import write_bytes, write_json, write_text
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_entries, read_looks
from cxr_jax.terminal import as_typed

FIGURES = (
    "baselines",
    "confusion_matrix",
    "confusion_matrix_validation",
    "decision_curve",
    "precision_recall",
    "quality",
    "robustness_test",
    "robustness_val",
    "reliability",
    "roc",
    "score_distributions",
    "training_epochs",
    "training_iterations",
)
"""Figures without a radiograph. Whatever is not named here stays in the run: a new figure is safe by default."""

CHECK_FIGURES = ("explanation_curves", "explanation_randomisation")
"""Figures of the checks of Grad-CAM maps: heat maps by themselves, without the radiographs below them."""


def targets_in(folder: Path, runs: Sequence[RunFolder]) -> list[Path]:
    """Returns where each run goes inside the results folder: its path below the folder that all of them share.

    A single run goes under its own name. Raises UserError if a run is given twice, or would be written onto a run.
    """
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) != len(paths):
        raise UserError("a run is named twice; name every run once")
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    targets = [folder / path.relative_to(shared) for path in paths]
    for target in targets:
        there = target.resolve()
        for run, path in zip(runs, paths, strict=True):
            if there.is_relative_to(path) or path.is_relative_to(there):
                raise UserError(f"{target} would be written onto the run {run.path} itself; choose another --out")
    return targets


def publish(run: RunFolder, folder: Path, config: str, *, figures: bool = True) -> None:
    """Copies what can be shown of `run` into `folder`, replacing an older copy of the same run.

    `config` is the text of the run's config as it is shown.
    Figures are copied as PNG, and only if `figures` asks for them: `evaluate --stored` draws them again. These are left
    out: checkpoints, TensorBoard's events, the report, the mean picture of the training images, every figure with a
    radiograph, and the path of the source in the data card. Runs and data that it tells of are named without the
    folders on the way to them.

    Raises:
        UserError: the run was not evaluated, or `folder` holds another run.
    """
    if not run.evaluation.is_file():
        raise UserError(f"{run.path} has not been evaluated; run {as_typed('cxr-jax', 'evaluate', run.path)} first")
    _require_same_run(run, folder)
    # an ensemble is not trained: what it is made of stands in place of a network and its training
    trained = [] if is_ensemble(run) else [run.network, run.metrics]
    needed = [run.environment, run.config, *trained, run.operating_point, run.ledger, run.data_card]
    missing = [path.name for path in needed if not path.is_file()]
    if missing or not run.figures.is_dir():
        raise UserError(
            f"{run.path} lacks {', '.join(missing) or 'its figures'}; run "
            f"{as_typed('cxr-jax', 'evaluate', run.path)} again"
        )
    read_looks(run)
    # The environment first: by it a copy that was broken off is known again.
    files = [run.environment, *trained, run.operating_point, run.evaluation]
    files += [
        path
        for path in (run.probe, run.quality, run.conformal, run.uncertainty, run.explanation_checks)
        if path.is_file()
    ]
    files += sorted(run.path.glob("robustness_*.json")) + sorted(run.path.glob("occlusion_*.json"))
    files += sorted(run.path.glob("localisation*.json"))
    files += sorted(run.predictions.glob("*.csv"))
    # what it gained and forgot, if it learned on
    files += [path for path in sorted(run.change.glob("*")) if path.suffix in (".csv", ".json")]
    shown = [path for path in run.figures.glob("*.png") if path.stem in (*FIGURES, *CHECK_FIGURES)]
    files += sorted(shown) if figures else []
    for path in RunFolder(folder).figures.glob("*.png"):
        if path.stem in (*FIGURES, *CHECK_FIGURES):
            path.unlink()
    for path in files:
        write_bytes(folder / path.relative_to(run.path), path.read_bytes())
    write_text(RunFolder(folder).config, config)
    _publish_named(run, RunFolder(folder))


def _publish_named(run: RunFolder, there: RunFolder) -> None:
    """Writes what names other runs and data into the published run `there`, without the folders on the way to them."""
    for path in (run.ledger, *sorted(run.change.glob("*.jsonl"))):
        write_text(there.path / path.relative_to(run.path), "".join(map(_without_folders, read_entries(path))))
    card = read_json(run.data_card)
    card["source"] = {name: value for name, value in card["source"].items() if name != "path"}
    if "table" in card["source"]:  # of labels
        told = card["source"]["table"]
        card["source"]["table"] = {**told, "table": Path(told["table"]).name}
    if "masks" in card:
        card["masks"]["source"] = ""
    if "replay" in card:
        card["replay"] = {**card["replay"], "dataset": Path(card["replay"]["dataset"]).name}
    write_json(there.data_card, card)
    if is_ensemble(run):
        record = read_ensemble(run)
        members = tuple(replace(member, run=_named(member.run)) for member in record.members)
        write_ensemble(there, replace(record, members=members))
    if is_continued(run):
        continued = read_continued(run)
        others = tuple(
            replace(entry, run=Path(entry.run).name, data=tuple(Path(name).name for name in entry.data))
            for entry in continued.averaged_with
        )
        named = {"run": Path(continued.run).name, "data": Path(continued.data).name}
        write_continued(there, replace(continued, **named, averaged_with=others))


def _without_folders(entry: dict[str, Any]) -> str:
    """Returns the line of an entry of a ledger in which runs are told without the folders on the way to them."""

    def shown(value: Any) -> Any:
        if isinstance(value, list):
            return [shown(entry) for entry in value]
        if isinstance(value, dict):
            return {key: _named(entry) if key == "run" else shown(entry) for key, entry in value.items()}
        return value

    return json.dumps(shown(entry)) + "\n"


def _named(run: str) -> str:
    """Returns the path of a run as others may read it: one beside this run as it is, others by their last two names."""
    parts = PurePosixPath(run).parts
    is_beside = parts[:1] == ("..",) and ".." not in parts[1:]
    return run if is_beside else "/".join(parts[-2:])


def _require_same_run(run: RunFolder, folder: Path) -> None:
    """Raises UserError if `folder` holds something that is not an older copy of `run`."""
    there = RunFolder(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not there.environment.is_file() or read_json(there.environment) != read_json(run.environment):
        raise UserError(f"{folder} holds something else than an older copy of {run.path}; choose another --out")
