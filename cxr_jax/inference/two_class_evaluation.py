"""Predicting the images of a run whose classes are NORMAL and PNEUMONIA, and judging what is predicted.

What runs a network is imported where it is needed: stored predictions are judged again without JAX.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cxr_jax.config.schema import Config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.evaluation.judgement import Judgement
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import Predictions
from cxr_jax.terminal import Terminal

if TYPE_CHECKING:
    from cxr_jax.inference.ensemble import Ensemble
    from cxr_jax.inference.restore import TrainedModel


@dataclass(frozen=True)
class Judged:
    """Predictions and their judgement."""

    validation: Predictions
    test: Predictions
    judgement: Judgement


def predict_and_judge(run: RunFolder, config: Config, prepared: PreparedData, terminal: Terminal) -> Judged:
    """Predicts validation, fixes the operating point, predicts test, judges it, and adds the look to the ledger."""
    from cxr_jax.data.split_loading import load_split
    from cxr_jax.evaluation.conformal import ConformalSets, write_conformal
    from cxr_jax.runs.ledger import read_looks
    from cxr_jax.runs.predictions import read_predictions, write_predictions

    look = len(read_looks(run)) + 1
    with terminal.waiting("Loading the network"):
        from cxr_jax.inference.ensemble import Ensemble, restore
        from cxr_jax.inference.features import fix_feature_reference
        from cxr_jax.inference.looks import record_look
        from cxr_jax.inference.predictions import predict_split

        trained = restore(run)

    def predict(split: str) -> Predictions:
        """Returns the network's predictions on one split, or those of an ensemble."""
        if split == "val" and config.data.validation == "out_of_fold":
            terminal.say("Validation is all of train, each image as the network of the fold that held it out judged it")
            return read_predictions(run.predictions_of(split))
        if isinstance(trained, Ensemble):
            return trained.predict_split(prepared, split, track=terminal.track)
        images = load_split(prepared, config.data, split, track=terminal.track)
        batch_size = config.training.evaluation_batch_size
        return predict_split(trained, images, split, batch_size=batch_size, track=terminal.track)

    validation = predict("val")
    write_predictions(run.predictions_of("val"), validation)
    point = _operating_point(run, config, trained, validation)
    write_conformal(run.conformal, ConformalSets.of(validation))
    fix_feature_reference(run, config, prepared, trained, track=terminal.track)
    terminal.say(f"Now look {look} at the test split, at the threshold {point.threshold:.4g} fixed on validation")
    test = predict("test")
    judgement = _judge(validation, test, point, terminal)
    # before anything of test can be seen, so that no look goes uncounted
    record_look(run, config, prepared, trained, test, judgement)
    write_predictions(run.predictions_of("test"), test)
    return Judged(validation, test, judgement)


def _judge(validation: Predictions, test: Predictions, point: OperatingPoint, terminal: Terminal) -> Judgement:
    from cxr_jax.evaluation.confidence import Confidence
    from cxr_jax.evaluation.judge import judge, resamples_in_all

    confidence = Confidence()
    resamples = resamples_in_all(confidence, with_validation=True)
    with terminal.track("Resampling for the intervals", resamples) as advance:
        return judge(validation, test, point.threshold, operating_point=point, confidence=confidence, advance=advance)


def judge_stored(run: RunFolder, config: Config, prepared: PreparedData, terminal: Terminal) -> Judged:
    """Judges the predictions and the operating point that an earlier evaluation stored.

    Raises:
        UserError: there was none, or its predictions are not of the images of the prepared data, or not those that the
            ledger has of the last look.
    """
    from cxr_jax.data.split_loading import with_prepared_groups
    from cxr_jax.evaluation.conformal import ConformalSets, write_conformal
    from cxr_jax.evaluation.operating_point import read_operating_point
    from cxr_jax.runs.ledger import require_that_of_the_look
    from cxr_jax.runs.predictions import predictions_sha256, read_predictions, write_predictions

    if not run.evaluation.is_file():
        raise UserError(f"{run.path} has no stored predictions: evaluate it without --stored first")
    point = read_operating_point(run.operating_point)
    tables = {}
    for split in ("val", "test"):
        path = run.predictions_of(split)
        stored = read_predictions(path)
        tables[split] = with_prepared_groups(prepared, config.data, split, stored, path)
        if split == "test":
            require_that_of_the_look(run, predictions_sha256(stored))
        if tables[split].group != stored.group:
            write_predictions(path, tables[split])
            terminal.say(f"{path}: the groups are now those of the prepared data; nothing else in it has changed.")
    write_conformal(run.conformal, ConformalSets.of(tables["val"]))
    return Judged(tables["val"], tables["test"], _judge(tables["val"], tables["test"], point, terminal))


def _operating_point(
    run: RunFolder, config: Config, trained: TrainedModel | Ensemble, validation: Predictions
) -> OperatingPoint:
    """Returns the stored operating point, or the one that the config's rule chooses on validation, stored at once.

    A stored one is kept as long as the network is the same, so that no look at test can move it.
    """
    from cxr_jax.evaluation.operating_point import choose_operating_point, read_operating_point, write_operating_point
    from cxr_jax.runs.ledger import is_evaluated

    if run.operating_point.is_file() and is_evaluated(run, trained.step, trained.checkpoint_sha256):
        return read_operating_point(run.operating_point)
    point = choose_operating_point(validation, **asdict(config.operating_point))
    write_operating_point(run.operating_point, point)
    return point
