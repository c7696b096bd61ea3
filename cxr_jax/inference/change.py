"""A network that learned on, beside the one that it began with: both on the old test images and on the new ones."""

from __future__ import annotations

import numpy as np

from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData, data_of_run_if_here
from cxr_jax.data.split_loading import load_rows
from cxr_jax.errors import UserError
from cxr_jax.evaluation.change import AFTER, BEFORE, Change, Changes, change_between, read_changes, write_changes
from cxr_jax.evaluation.class_points import ClassPoints, read_class_points, read_thresholds
from cxr_jax.evaluation.operating_point import OperatingPoint, read_operating_point
from cxr_jax.inference.looks import record_look_elsewhere, told_thresholds
from cxr_jax.inference.predictions import predict_split
from cxr_jax.inference.restore import TrainedModel, restore_run
from cxr_jax.runs.class_predictions import read_any_predictions, write_any_predictions
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.continued import Continued, read_continued
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import has_fixed, is_evaluated
from cxr_jax.runs.predictions import Predictions
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import CLASS_NAMES

RECORD, LEDGER = "change.json", "ledger.jsonl"
NEW_BEFORE, OLD_BEFORE, OLD_AFTER = "new_before.csv", "old_before.csv", "old_after.csv"
"""Tables beside them; what the network says of the new test images now is the run's own table."""


def compare_with_origin(
    run: RunFolder, prepared: PreparedData, test: Predictions, terminal: Terminal, *, stored: bool
) -> Changes | None:
    """Compares an evaluated run with the run that it learned on from, stores the record, and returns it.

    Both are judged on the test images of the new data, and on those of the old, each at the threshold of its own run.
    Every prediction that is made is a look, and stands in a ledger beside the tables.

    Args:
        run: one that learned on.
        prepared: its data, the new ones.
        test: its predictions on their test images.
        terminal: shows progress, and what cannot be compared.
        stored: take the tables of an earlier evaluation; no network runs.

    Returns:
        None where the run that it learned on from is not there, or has another network by now.

    Raises:
        UserError: a table cannot be read, or is not of the same images.
    """
    continued = read_continued(run)
    origin = continued.origin(run)
    networks: dict[str, TrainedModel] = {}
    if not stored:
        try:
            networks = {BEFORE: _origin_as_it_was(origin, continued), AFTER: restore_run(run)}
        except UserError as error:
            terminal.say(f"Not compared with {as_typed(origin.path)}, from which it learned on: {error}")
            return None
    old = data_of_run_if_here(origin)
    record = run.change / RECORD
    if stored and (old is None or not record.is_file()):
        # what was compared when all was here stays as it is
        return read_changes(record) if record.is_file() else None
    asked = [(NEW_BEFORE, BEFORE, prepared)]
    if old is None:
        terminal.say(f"{continued.data}, from which it had learned before, is not here: nothing is told of it")
    else:
        asked += [(OLD_BEFORE, BEFORE, old), (OLD_AFTER, AFTER, old)]
    of_runs = {BEFORE: origin, AFTER: run}
    tables: dict[str, Predictions | ClassProbabilities] = {}
    for name, which, data in asked:
        path = run.change / name
        if networks:
            kept = _kept_predictions(origin, continued) if name == OLD_BEFORE else None
            predictions = kept or _predicted(run, of_runs[which], networks[which], data, terminal)
            write_any_predictions(path, predictions)
        if path.is_file():
            tables[name] = read_any_predictions(path)
    # what the origin fixed counts if it was of the network that this run began with
    known = has_fixed(origin, continued.step, continued.sha256)
    points = {BEFORE: _fixed(origin, prepared) if known else None, AFTER: _fixed(run, prepared)}

    def change(
        data: PreparedData | None,
        before: Predictions | ClassProbabilities | None,
        after: Predictions | ClassProbabilities | None,
    ) -> Change | None:
        if data is None or before is None or after is None:
            return None
        name = data.card["name"]
        try:
            return change_between(name, data.fingerprint, (before, points[BEFORE]), (after, points[AFTER]))
        except UserError as error:
            terminal.say(f"Not compared on {name}: {error}")
            return None

    with terminal.waiting("Comparing before and after"):
        changes = Changes(
            origin=origin.name,
            new=change(prepared, tables.get(NEW_BEFORE), test),
            old=change(old, tables.get(OLD_BEFORE), tables.get(OLD_AFTER)),
        )
    write_changes(record, changes)
    return changes


def _origin_as_it_was(origin: RunFolder, continued: Continued) -> TrainedModel:
    """Returns the network that a run began with; UserError if it is not there any more."""
    trained = restore_run(RunFolder.open(origin.path), continued.checkpoint)
    if trained.checkpoint_sha256 != continued.sha256:
        raise UserError("its network is another one by now, by its sha256")
    return trained


def _fixed(run: RunFolder, prepared: PreparedData) -> OperatingPoint | ClassPoints:
    """Returns what a run fixed on validation."""
    read = read_operating_point if prepared.classes == CLASS_NAMES else read_class_points
    return read(run.operating_point)


def _kept_predictions(origin: RunFolder, continued: Continued) -> Predictions | ClassProbabilities | None:
    """Returns what the origin predicted on its own test images, by the network that was begun with; None if it did
    not.
    """
    path, known = origin.predictions_of("test"), is_evaluated(origin, continued.step, continued.sha256)
    return read_any_predictions(path) if known and path.is_file() else None


def _predicted(
    run: RunFolder, of_run: RunFolder, network: TrainedModel, data: PreparedData, terminal: Terminal
) -> Predictions | ClassProbabilities:
    """Returns what the network of `of_run` predicts on the test images of `data`, once the look is in the ledger."""
    config = load_config(of_run.config)
    name = data.card["name"]
    rows = [row for row, example in enumerate(data.examples) if example.split == "test"]
    images = load_rows(data, config.data, np.array(rows, np.int32), track=terminal.track)
    terminal.say(f"A look at the test images of {name} by the network of {as_typed(of_run.path)}")
    batch_size = config.training.evaluation_batch_size
    predictions = predict_split(network, images, "test", batch_size=batch_size, track=terminal.track)
    fixed = has_fixed(of_run, network.step, network.checkpoint_sha256)
    point = of_run.operating_point
    thresholds = told_thresholds(read_thresholds(point, data.classes)) if fixed else {"threshold": None}
    told = {"run": str(of_run.path.resolve()), **thresholds}
    record_look_elsewhere(run, run.change / LEDGER, config, data, network, predictions, data.test_images, told)
    return predictions
