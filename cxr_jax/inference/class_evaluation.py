"""A network of other classes than NORMAL and PNEUMONIA, or of findings, predicts validation and test, and is judged."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from cxr_jax.config.schema import Config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.quality.reference import QualityReference, write_reference
from cxr_jax.data.split_loading import load_split, quality_of_split, with_prepared_groups
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_judgement import ClassJudgement
from cxr_jax.evaluation.class_points import ClassPoints, choose_class_points, read_class_points, write_class_points
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge_classes import class_resamples_in_all, judge_classes
from cxr_jax.evaluation.judgement import write_judgement
from cxr_jax.inference.ensemble import Ensemble, restore
from cxr_jax.inference.looks import record_class_look
from cxr_jax.inference.predictions import predict_split
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.class_predictions import read_class_predictions, write_class_predictions
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import is_evaluated, read_looks, require_that_of_the_look
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import FINDINGS


@dataclass(frozen=True)
class JudgedClasses:
    """Predictions of K classes and their judgement."""

    validation: ClassProbabilities
    test: ClassProbabilities
    judgement: ClassJudgement


def evaluate_classes(
    run: RunFolder, config: Config, prepared: PreparedData, terminal: Terminal, *, stored: bool
) -> JudgedClasses:
    """Judges a run of K classes, and writes what is known of it but for figures and report.

    As with two classes, the thresholds are fixed on validation and stored before the first prediction on test is made,
    and the look is added to the ledger before anything of test can be seen. With `stored` the tables of an earlier
    evaluation are judged again, and no network runs.

    Raises:
        UserError: the run or its data cannot be read, or there is nothing stored.
    """
    judged = _judge_stored(run, config, prepared, terminal) if stored else _predict(run, config, prepared, terminal)
    write_judgement(run.evaluation, judged.judgement)
    # what `predict` compares new images with
    measured, _ = quality_of_split(prepared, config.data, "train", track=terminal.track)
    write_reference(run.quality_reference, QualityReference.of(measured))
    return judged


def _predict(run: RunFolder, config: Config, prepared: PreparedData, terminal: Terminal) -> JudgedClasses:
    """Predicts validation, fixes the thresholds, predicts test, judges it, and adds the look to the ledger."""
    look = len(read_looks(run)) + 1
    with terminal.waiting("Loading the network"):
        trained = restore(run)
    validation = _predictions(run, trained, config, prepared, "val", terminal)
    write_class_predictions(run.predictions_of("val"), validation)
    points = _points(run, config, trained, validation)
    what = "findings" if prepared.kind == FINDINGS else "classes"
    terminal.say(f"Now look {look} at the test split, with the thresholds of all {what} fixed on validation")
    test = _predictions(run, trained, config, prepared, "test", terminal)
    judgement = _judge(validation, test, points, terminal)
    record_class_look(run, config, prepared, trained, test, judgement)
    write_class_predictions(run.predictions_of("test"), test)
    return JudgedClasses(validation, test, judgement)


def _predictions(
    run: RunFolder,
    trained: TrainedModel | Ensemble,
    config: Config,
    prepared: PreparedData,
    split: str,
    terminal: Terminal,
) -> ClassProbabilities:
    if split == "val" and config.data.validation == "out_of_fold":
        # the networks saw all of these images; what each said of those that it did not is the ensemble's validation
        return read_class_predictions(run.predictions_of("val"))
    if isinstance(trained, Ensemble):
        return trained.predict_split(prepared, split, track=terminal.track)
    images = load_split(prepared, config.data, split, track=terminal.track)
    batch_size = config.training.evaluation_batch_size
    return predict_split(trained, images, split, batch_size=batch_size, track=terminal.track)


def _points(
    run: RunFolder, config: Config, trained: TrainedModel | Ensemble, validation: ClassProbabilities
) -> ClassPoints:
    """Returns the stored points, or those that the config's rule chooses on validation, stored at once.

    Stored ones are kept as long as the network is the same, so that no look at test can move them.
    """
    if run.operating_point.is_file() and is_evaluated(run, trained.step, trained.checkpoint_sha256):
        return read_class_points(run.operating_point)
    points = choose_class_points(validation, **dataclasses.asdict(config.operating_point))
    write_class_points(run.operating_point, points)
    return points


def _judge(
    validation: ClassProbabilities, test: ClassProbabilities, points: ClassPoints, terminal: Terminal
) -> ClassJudgement:
    confidence = Confidence()
    resamples = class_resamples_in_all(confidence, len(test.classes), with_validation=True)
    with terminal.track("Resampling for the intervals", resamples) as advance:
        return judge_classes(validation, test, points, confidence=confidence, advance=advance)


def _judge_stored(run: RunFolder, config: Config, prepared: PreparedData, terminal: Terminal) -> JudgedClasses:
    """Judges the predictions and the thresholds that an earlier evaluation stored."""
    if not run.evaluation.is_file():
        raise UserError(f"{run.path} has no stored predictions: evaluate it without --stored first")
    points = read_class_points(run.operating_point)
    tables = {}
    for split in ("val", "test"):
        path = run.predictions_of(split)
        stored = read_class_predictions(path)
        if (stored.classes, stored.KIND) != (prepared.classes, prepared.kind):
            raise UserError(f"{path} is of other classes than the prepared data: evaluate without --stored")
        tables[split] = with_prepared_groups(prepared, config.data, split, stored, path)
        if split == "test":
            require_that_of_the_look(run, stored.sha256())
        if tables[split].group != stored.group:
            write_class_predictions(path, tables[split])
            terminal.say(f"{path}: the groups are now those of the prepared data; nothing else in it has changed.")
    return JudgedClasses(tables["val"], tables["test"], _judge(tables["val"], tables["test"], points, terminal))
