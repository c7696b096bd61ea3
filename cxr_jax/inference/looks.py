"""What the ledger keeps of a look at test: which network looked, what it predicted, and how good that was."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cxr_jax.config.schema import Config
from cxr_jax.data.prepared import PreparedData, prepared_root, readable_data
from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.class_judgement import ClassJudgement
from cxr_jax.evaluation.comparison_record import HALF
from cxr_jax.evaluation.judgement import Judgement
from cxr_jax.evaluation.localisation import Localisation
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.evaluation.rates import class_rates_of
from cxr_jax.evaluation.robustness import Level
from cxr_jax.inference.ensemble import Ensemble
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.counted_looks import count_look, identify, images_digest, unidentified
from cxr_jax.runs.files import writing
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import append_look
from cxr_jax.runs.predictions import Predictions, predictions_sha256

_TOLD = ("accuracy", "balanced_accuracy", "macro_roc_auc")
"""Metrics of other classes, and of findings, that the ledger tells, as far as they have them."""


def record_look(
    run: RunFolder,
    config: Config,
    prepared: PreparedData,
    trained: TrainedModel | Ensemble,
    test: Predictions,
    judgement: Judgement,
) -> None:
    """Adds a look at test to the ledger of `run`, and to the count of all runs on this machine.

    The hashes say which checkpoint looked and what it predicted, so that neither can be taken for another later.

    Raises:
        UserError: the ledger cannot be written.
    """
    metrics, point = judgement.test.metrics, judgement.operating_point
    look = {
        "threshold": point.threshold,
        "rule": point.rule,
        "result": {name: metrics[name].value for name in ("accuracy", "sensitivity", "specificity", "roc_auc")},
    }
    _append(run, config, prepared, trained, predictions_sha256(test), look)


def record_class_look(
    run: RunFolder,
    config: Config,
    prepared: PreparedData,
    trained: TrainedModel | Ensemble,
    test: ClassProbabilities,
    judgement: ClassJudgement,
) -> None:
    """Adds a look at test of a network of other classes; else as `record_look`."""
    metrics, points = judgement.test.metrics, judgement.points.classes
    look = {
        **told_thresholds({name: point.threshold for name, point in points.items()}),
        "rule": next(iter(points.values())).rule,
        "result": {name: metrics[name].value for name in _TOLD if name in metrics},
    }
    _append(run, config, prepared, trained, test.sha256(), look)


def _append(
    run: RunFolder,
    config: Config,
    prepared: PreparedData,
    trained: TrainedModel | Ensemble,
    predictions: str,
    look: dict[str, Any],
) -> None:
    """Adds a look to the ledger and to the count; `predictions` is the sha256 of what was predicted."""
    append_look(
        run,
        {
            "split": "test",
            **_what_looked(config, trained),
            "checkpoint_sha256": trained.checkpoint_sha256,
            "predictions_sha256": predictions,
            **count_look_at(prepared, run),
            **look,
        },
    )


def record_changed_look(
    run: RunFolder,
    config: Config,
    prepared: PreparedData,
    trained: TrainedModel,
    how: Literal["degraded", "occluded"],
    unchanged: Level,
    thresholds: float | Mapping[str, float],
) -> None:
    """Adds a look at test images that were changed to the ledger of `run`, and to the count of all on this machine.

    `how` says in which way, and `unchanged` is what the network is worth on them as they are, at `thresholds`.

    Raises:
        UserError: the ledger cannot be written.
    """
    measured = {name: getattr(unchanged, name) for name in ("sensitivity", "specificity", "roc_auc")}
    append_look(
        run,
        {
            "split": "test",
            how: True,
            **_what_looked(config, trained),
            "checkpoint_sha256": trained.checkpoint_sha256,
            **count_look_at(prepared, run),
            **told_thresholds(thresholds),
            "result": {name: value.value for name, value in measured.items()},
        },
    )


def told_thresholds(thresholds: float | Mapping[str, float]) -> dict[str, Any]:
    """Returns what a line of a ledger says of the threshold of PNEUMONIA, or of those of other classes."""
    if isinstance(thresholds, float):
        return {"threshold": thresholds}
    return {"threshold": None, "thresholds": dict(thresholds)}


def record_localised_look(
    run: RunFolder,
    config: Config,
    prepared: PreparedData,
    trained: TrainedModel,
    images: frozenset[str],
    localisation: Localisation,
    ledger: Path | None = None,
) -> None:
    """Adds a look at images whose maps are held against drawn boxes to the ledger of `run`, or to another in its
    folder, and to the count of all on this machine.

    `images` are the sha256 of each. Raises UserError if the ledger cannot be written.
    """
    if ledger is not None:
        with writing(ledger):
            ledger.parent.mkdir(parents=True, exist_ok=True)
    pointing = localisation.parts[-1].score("pointing").network
    look = {
        "split": localisation.images_of,
        "localised": True,
        "dataset": localisation.dataset,
        "data_fingerprint": prepared.fingerprint,
        **_what_looked(config, trained),
        "checkpoint_sha256": trained.checkpoint_sha256,
        **count_look_at(prepared, run, images),
        "result": {"pointing": pointing.share.value},
    }
    append_look(run, look, ledger)


def record_look_elsewhere(
    run: RunFolder,
    ledger: Path,
    config: Config,
    prepared: PreparedData,
    trained: TrainedModel,
    predictions: Predictions | ClassProbabilities,
    images: frozenset[str],
    told: dict[str, Any],
) -> None:
    """Adds a look at images that are not the run's own test images to a ledger of theirs, and to the count.

    Args:
        run: in whose folder the ledger is.
        ledger: it.
        config: of the network.
        prepared: data that the images are of.
        trained: the network that looked.
        predictions: what it predicted.
        images: sha256 of each image.
        told: what else the line says.

    Raises:
        UserError: the ledger cannot be written.
    """
    with writing(ledger):
        ledger.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(predictions, Predictions):
        areas = {"roc_auc": metric_value("roc_auc", Cases.unweighted(predictions.label, predictions.probability))}
    else:
        rates = class_rates_of(predictions, dict.fromkeys(predictions.classes, HALF))
        areas = {"macro_roc_auc": rates[""].roc_auc.value}
    look = {
        "dataset": prepared.card["name"],
        "data_fingerprint": prepared.fingerprint,
        **_what_looked(config, trained),
        "checkpoint_sha256": trained.checkpoint_sha256,
        "predictions_sha256": predictions.sha256(),
        **count_look_at(prepared, run, images),
        "result": areas,
        **told,
    }
    append_look(run, look, ledger)


def count_look_at(prepared: PreparedData, run: RunFolder, images: frozenset[str] | None = None) -> dict[str, Any]:
    """Counts a look of `run` at the test images of prepared data, or at others of its `images` by their sha256.

    Returns what the ledger says of the count.

    Its numbers are None where no count can be kept. Looks that an earlier version counted by the fingerprint of data
    count as well where these data are here.
    """
    root = prepared_root()
    if earlier := set(unidentified(root)):
        with contextlib.suppress(UserError):
            for data in (prepared, *readable_data()):
                if data.fingerprint in earlier:
                    identify(root, data.fingerprint, data.test_images)
    images = prepared.test_images if images is None else images
    counted = count_look(root, images, run)
    return {
        "test_images_sha256": images_digest(images),
        "looks_at_these_images": counted and counted.these,
        "looks_at_unknown_images": counted and counted.unknown,
    }


def _what_looked(config: Config, trained: TrainedModel | Ensemble) -> dict[str, Any]:
    """Returns what the ledger says of the network, or of every member of an ensemble."""
    if isinstance(trained, TrainedModel):
        return {"checkpoint": config.validation.checkpoint, "step": trained.step}
    names = ("run", "checkpoint", "step", "sha256")
    members = [{name: getattr(member, name) for name in names} for member in trained.record.members]
    return {"checkpoint": trained.title, "members": members}
