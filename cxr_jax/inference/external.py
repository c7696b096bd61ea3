"""A trained network on films of another source, called at the threshold that was fixed in its run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import Config
from cxr_jax.data.attributes import attributes_of
from cxr_jax.data.attributes import parts_of as parts_of_attributes
from cxr_jax.data.learned_images import images_learned_from
from cxr_jax.data.prepared import PreparedData, data_of_run_if_here
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.quality.measures import MEASURES
from cxr_jax.data.quality.reference import read_reference
from cxr_jax.data.quality.table import quality_table
from cxr_jax.data.split_loading import load_rows, load_split
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_points import read_class_points, read_thresholds
from cxr_jax.evaluation.conformal import ConformalSets
from cxr_jax.evaluation.external import (
    External,
    Warnings,
    of_classes,
    parts_of,
    read_external,
    recalibrate,
    shares_warned,
    spread_of_quality,
    spread_of_scores,
    write_external,
)
from cxr_jax.evaluation.operating_point import read_operating_point
from cxr_jax.evaluation.quality import read_quality
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.changed import predict_changed
from cxr_jax.inference.features import SPLITS, make_feature_reference
from cxr_jax.inference.looks import record_look_elsewhere, told_thresholds
from cxr_jax.inference.restore import TrainedModel, require_fixed, restore_run
from cxr_jax.runs.class_predictions import read_any_predictions, write_any_predictions
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.predictions import Predictions, read_predictions
from cxr_jax.terminal import as_typed
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, FINDINGS

RECORD, TABLE, LEDGER = "external.json", "predictions.csv", "ledger.jsonl"
"""Files in the folder of one set of films."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a run is worth on films of another source, and the folder with record, predictions and ledger."""

    external: External
    folder: Path


def evaluate_on(run: RunFolder, dataset: str, *, test_alone: bool = False, track: Track = silently) -> Evaluated:
    """Judges an evaluated run on other prepared data, adds the look to a ledger of its own, and stores the record.

    Nothing of the run itself changes: its threshold stays, and so do its predictions and its ledger.

    Args:
        run: an evaluated one.
        dataset: name or folder of the prepared data.
        test_alone: take their test images alone, and not all of them.
        track: shows the progress.

    Raises:
        UserError: the run is an ensemble or was not evaluated, the data are not prepared, are of other classes, or are
            those that the run was trained on.
    """
    config, prepared = load_config(run.config), PreparedData.open(dataset)
    _require_alike(run, prepared)
    if (config.data.region, config.data.crop) != ("whole", "none"):
        raise UserError(f"--on is for networks of whole images, and {run.path} was shown parts of them")
    images_of: Literal["all", "test"] = "test" if test_alone else "all"
    rows = [row for row, example in enumerate(prepared.examples) if not test_alone or example.split == "test"]
    if not rows:
        raise UserError(f"{dataset} has no test images: leave --test out to take all")
    require_unseen(run, prepared, rows, test_alone=test_alone)
    folder = folder_of_films(run, prepared, test_alone=test_alone)
    trained = restore_run(run)
    require_fixed(run, trained, "films")
    trained = _with_references(run, trained, config, data_of_run_if_here(run), track)
    images = load_rows(prepared, config.data, np.array(rows, np.int32), track=track)
    validation = read_any_predictions(run.predictions_of("val"))
    external, predictions = _judge(run, trained, config, prepared, images, validation, images_of, track)
    content = frozenset(prepared.examples[row].sha256 for row in rows)
    # before anything can be seen, so that no look goes uncounted
    thresholds = told_thresholds(read_thresholds(run.operating_point, prepared.classes))
    told = {"split": images_of, **thresholds, "rule": external.rule}
    record_look_elsewhere(run, folder / LEDGER, config, prepared, trained, predictions, content, told)
    write_any_predictions(folder / TABLE, predictions)
    write_external(folder / RECORD, external)
    return Evaluated(external, folder)


def _require_alike(run: RunFolder, prepared: PreparedData) -> None:
    """Raises UserError for classes that the run does not have, in its order, or of another kind."""
    told = read_json(run.network)
    classes, kind = tuple(told.get("classes", CLASS_NAMES)), told.get("kind", EXCLUSIVE)
    if (prepared.classes, prepared.kind) == (classes, kind):
        return
    theirs, known = ("findings" if each == FINDINGS else "classes" for each in (prepared.kind, kind))
    same = as_typed("cxr-jax", "prepare", "SOURCE", "--name", "NAME", "--classes", *classes)
    raise UserError(
        f"{prepared.card['name']} has the {theirs} {', '.join(prepared.classes)}, and {run.path} knows the {known} "
        f"{', '.join(classes)}: prepare these films with the {known} of the run, as in {same}"
        + (" --findings" if kind == FINDINGS else "")
    )


def require_unseen(run: RunFolder, prepared: PreparedData, rows: list[int], *, test_alone: bool) -> None:
    """Raises UserError if the network was trained or validated on some of the images, told by their content."""
    name = prepared.card["name"]
    if read_json(run.environment).get("data_fingerprint") == prepared.fingerprint:
        raise UserError(
            f"{name} is what {run.path} was trained on: {as_typed('cxr-jax', 'evaluate', run.path)} judges it on its "
            "test images"
        )
    used = images_learned_from(run)
    count = sum(prepared.examples[row].sha256 in used for row in rows)
    if count:
        advice = "name other films" if test_alone else "take its test images alone by --test, or name other films"
        raise UserError(f"{run.path} was trained on {count:,} of the {len(rows):,} images of {name}: {advice}")


def folder_of_films(run: RunFolder, prepared: PreparedData, *, test_alone: bool) -> Path:
    """Returns where a run keeps what it is worth on prepared data; UserError if that is of other data of this name."""
    folder = run.external / (f"{prepared.card['name']}-test" if test_alone else prepared.card["name"])
    path = folder / RECORD
    if path.is_file() and read_external(path).fingerprint != prepared.fingerprint:
        raise UserError(
            f"{folder} holds results on other data that were called {prepared.card['name']}: rename that folder, or "
            "prepare these under another --name"
        )
    return folder


def _with_references(
    run: RunFolder, trained: TrainedModel, config: Config, own: PreparedData | None, track: Track
) -> TrainedModel:
    """Returns the network with what an earlier version did not keep, as far as the run's own data can tell it.

    Only train and validation are looked at, and nothing is stored. Of other classes than NORMAL and PNEUMONIA no
    version keeps any.
    """
    if trained.description.classes != CLASS_NAMES:
        return trained
    if trained.sets is None and run.predictions_of("val").is_file():
        sets = ConformalSets.of(read_predictions(run.predictions_of("val")))
        trained = dataclasses.replace(trained, sets=sets)
    if trained.reference is None and own is not None and config.data.validation != "out_of_fold":
        training, validation = (
            load_split(own, config.data.of_radiographs(), name, track=track, mapped=True) for name in SPLITS
        )
        batch_size = config.training.evaluation_batch_size
        reference = make_feature_reference(trained, training, validation, batch_size=batch_size, track=track)
        trained = dataclasses.replace(trained, reference=reference)
    return trained


def _judge(
    run: RunFolder,
    trained: TrainedModel,
    config: Config,
    prepared: PreparedData,
    images: ImageSet,
    validation: Predictions | ClassProbabilities,
    images_of: Literal["all", "test"],
    track: Track,
) -> tuple[External, Predictions | ClassProbabilities]:
    """Returns what the network is worth on the images, and its predictions."""
    name = prepared.card["name"]
    with track(f"Predicting {name}", len(images)) as advance:
        batch_size = config.training.evaluation_batch_size
        predictions, far = predict_changed(
            trained, images, "test", lambda batch, _: batch, batch_size=batch_size, advance=advance
        )
    measured = quality_table(prepared, track=track).rows(images.ids)
    quality = read_reference(run.quality_reference).outside(measured) if run.quality_reference.is_file() else None
    warnings = Warnings(far, quality)
    attributes = parts_of_attributes([attributes_of(prepared.examples[row].known) for row in images.ids])
    sets = trained.sets.rule() if trained.sets else None
    thresholds = read_thresholds(run.operating_point, prepared.classes)
    parts = parts_of(predictions, thresholds, attributes, sets, warnings)
    two = isinstance(predictions, Predictions)
    external = External(
        dataset=name,
        fingerprint=prepared.fingerprint,
        phantom=bool(prepared.card["phantom"]),
        images_of=images_of,
        threshold=thresholds if two else None,
        rule=_rule(run, prepared.classes),
        checkpoint_sha256=trained.checkpoint_sha256,
        parts=parts[""],
        recalibration=recalibrate(predictions, thresholds) if two else None,
        scores=spread_of_scores(validation, predictions) if two else {},
        quality=spread_of_quality(
            measured.columns,
            {measure: (told.title, told.unit) for measure, told in MEASURES.items()},
            read_quality(run.quality) if run.quality.is_file() else None,
            warnings,
        ),
        warned=shares_warned(predictions, warnings),
    )
    if not two:
        external = of_classes(external, parts, thresholds, (validation, predictions))
    return external, predictions


def _rule(run: RunFolder, classes: tuple[str, ...]) -> str:
    """Returns the rule that fixed the threshold, or the rules of those of other classes."""
    if classes == CLASS_NAMES:
        return read_operating_point(run.operating_point).rule
    return " or ".join(sorted({point.rule for point in read_class_points(run.operating_point).classes.values()}))
