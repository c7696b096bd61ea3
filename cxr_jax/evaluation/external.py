"""What a network is worth on films of another source: the record of `cxr-jax evaluate RUN --on DATASET`.

Nothing is fitted to these films but the one shift that says what recalibration would gain, and that is not applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import expit

from cxr_jax.evaluation.calibration import calibration_in_the_large, margins_of
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.class_points import against_the_rest
from cxr_jax.evaluation.conformal import SetRule
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.evaluation.quality import ImageQuality
from cxr_jax.evaluation.quality_audit import Quantiles, summarise
from cxr_jax.evaluation.rates import Rates, class_rates_of, share_of
from cxr_jax.evaluation.shift import score_shift
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.files import write_json
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS, PNEUMONIA

ClassTables = tuple[ClassProbabilities, ClassProbabilities]

SCHEMA_VERSION = 1
"""Version of external.json."""

EVERYTHING = "all"
"""What the part with all images is called."""

_COMPARED = ("log_loss", "brier", "accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Part:
    """Some of the images, told by one attribute of theirs; the first part of a record are all images.

    Attributes:
        attribute: `all`, or the name of the attribute.
        value: that the images of the part share; empty for all.
        images: how many there are.
        groups: how many they come from; None where these are not known.
        pneumonia: images of that class, or of the class in its place; None of several classes together.
        rates: what the network is worth on them.
        warned: share that `predict` would warn of; None where the run compares nothing with its training images.
    """

    attribute: str
    value: str
    images: int
    groups: int | None
    pneumonia: int | None
    rates: Rates
    warned: Measured | None


@dataclass(frozen=True)
class Recalibration:
    """What a shift of all logits by one number would gain, were it applied; it is not.

    Attributes:
        shift: in logits, fitted on the labels of these very images; it makes the mean probability their share of
            PNEUMONIA (Van Calster et al. 2019).
        before: metrics as predicted, at the fixed threshold.
        after: the same with the shift.
    """

    shift: float
    interval: Interval | None
    before: dict[str, float | None]
    after: dict[str, float | None]


@dataclass(frozen=True)
class ScoreSpread:
    """The probabilities of one class, here and on validation, and the chance that one of here is the higher."""

    validation: Quantiles
    here: Quantiles
    higher_here: float
    interval: Interval | None


@dataclass(frozen=True)
class MeasureSpread:
    """One measure of image quality here, beside that of the images of training and validation.

    Attributes:
        title: what it is called.
        unit: empty for plain numbers.
        training: its quantiles on the training images; None where the run keeps none.
        validation: likewise.
        here: on these images.
        outside: images beyond the range that is usual in training; None where an unusual value is no reason to warn.
    """

    title: str
    unit: str
    training: Quantiles | None
    validation: Quantiles | None
    here: Quantiles
    outside: int | None


@dataclass(frozen=True)
class External:
    """The contents of external.json.

    Attributes:
        dataset: name of the prepared data.
        fingerprint: of the data.
        phantom: they are drawn.
        images_of: all images of the data, or those of its test split.
        threshold: fixed in the run, and not moved; None of several classes, which have one each.
        rule: by which it was fixed.
        checkpoint_sha256: of the network.
        parts: all images, then those of each value of each attribute that the data tell.
        recalibration: None where the images lack a class, and of several exclusive classes.
        scores: by class; a class that is not there is missing.
        quality: by measure.
        warned: share of images that the network's features or the quality warn of, by `features` and `quality`.
        classes: each class against the rest, or each finding on the images of which it is known, by name, where they
            are not NORMAL and PNEUMONIA; the figures beside it are then the means over them.
    """

    dataset: str
    fingerprint: str
    phantom: bool
    images_of: Literal["all", "test"]
    threshold: float | None
    rule: str
    checkpoint_sha256: str
    parts: tuple[Part, ...]
    recalibration: Recalibration | None
    scores: dict[str, ScoreSpread]
    quality: dict[str, MeasureSpread]
    warned: dict[str, Measured]
    classes: dict[str, External] = field(default_factory=dict)

    @property
    def whole(self) -> Part:
        """All images."""
        return self.parts[0]


@dataclass(frozen=True)
class Warnings:
    """Which of N images `predict` would warn of; None where the run has nothing to compare them with.

    Attributes:
        features: bool [N], beyond the limit of the network's features.
        quality: bool [N] for each measure, beyond its usual range.
    """

    features: np.ndarray | None
    quality: dict[str, np.ndarray] | None

    @property
    def any(self) -> np.ndarray | None:
        """Bool [N]: images with a warning of any kind."""
        kinds = [kind for kind in (self.features, self.of_quality) if kind is not None]
        return np.any(kinds, axis=0) if kinds else None

    @property
    def of_quality(self) -> np.ndarray | None:
        """Bool [N]: images with any measure beyond its usual range."""
        return None if self.quality is None else np.any(list(self.quality.values()), axis=0)


def parts_of(
    predictions: Predictions | ClassProbabilities,
    thresholds: float | Mapping[str, float],
    attributes: Mapping[str, Mapping[str, np.ndarray]],
    sets: SetRule | None,
    warnings: Warnings,
) -> dict[str, tuple[Part, ...]]:
    """Returns what the network is worth on all images, and on those of each value of each attribute.

    They are those of all classes together under the empty name, and of each by its own, as in `class_rates_of`.
    `attributes` has for each attribute the images [N] bool of each of its values. One without images is left out.
    """
    chosen = [(EVERYTHING, "", np.ones(len(predictions), bool))]
    for attribute, values in attributes.items():
        chosen += [(attribute, value, rows) for value, rows in values.items() if rows.any()]
    found = [_parts(*entry, predictions, thresholds, sets, warnings) for entry in chosen]
    return {name: tuple(parts[name] for parts in found) for name in found[0]}


def _parts(
    attribute: str,
    value: str,
    rows: np.ndarray,
    predictions: Predictions | ClassProbabilities,
    thresholds: float | Mapping[str, float],
    sets: SetRule | None,
    warnings: Warnings,
) -> dict[str, Part]:
    some, warned = predictions.select(rows), warnings.any
    unlike = None if warnings.features is None else warnings.features[rows]
    parts = {}
    for name, rates in class_rates_of(some, thresholds, sets, unlike).items():
        images, positive = len(some), None
        if name:
            known, shown = some.asked(name)
            images, positive = int(known.sum()), int(shown.sum())
        elif isinstance(some, Predictions):
            positive = int(np.sum(some.label == PNEUMONIA))
        parts[name] = Part(
            attribute,
            value,
            images=images,
            groups=len(set(some.group)) if some.has_groups and images == len(some) else None,
            pneumonia=positive,
            rates=rates,
            warned=None if warned is None or name else share_of(some, "warned of", warned[rows]),
        )
    return parts


def recalibrate(predictions: Predictions, threshold: float) -> Recalibration | None:
    """Returns what recalibration in the large would gain; None where the images lack a class."""
    margins = margins_of(predictions)
    clusters = predictions.clusters() if predictions.has_groups else None
    found = calibration_in_the_large(margins, predictions.label, clusters)
    if found is None:
        return None
    before, after = (
        {name: metric_value(name, Cases.unweighted(predictions.label, chance, threshold)) for name in _COMPARED}
        for chance in (predictions.probability, expit(margins + found.value))
    )
    return Recalibration(found.value, found.interval, before, after)


def spread_of_scores(validation: Predictions, here: Predictions) -> dict[str, ScoreSpread]:
    """Returns the probabilities of every class that both have."""
    spreads = {}
    for label, name in enumerate(CLASS_NAMES):
        if not ((validation.label == label).any() and (here.label == label).any()):
            continue
        moved = score_shift(validation, here, label)
        quantiles = (
            summarise({"probability": table.probability[table.label == label]})["probability"]
            for table in (validation, here)
        )
        spreads[name] = ScoreSpread(*quantiles, moved.higher_on_test, moved.interval)
    return spreads


def of_classes(
    whole: External, parts: Mapping[str, tuple[Part, ...]], thresholds: Mapping[str, float], tables: ClassTables
) -> External:
    """Returns the record of several classes, `whole` being that of all together, with that of each class.

    `tables` are the predictions on validation and on these images. The probabilities of a class are told of its images
    and of the others. What a shift would gain is told of findings; of exclusive classes it would move the others too.
    """
    classes = {}
    for name, threshold in thresholds.items():
        known = all(table.asked(name)[0].any() for table in tables)
        validation, here = (against_the_rest(table, name) for table in tables) if known else (None, None)
        scores = spread_of_scores(validation, here) if known else {}
        named = dict(zip(CLASS_NAMES, (f"not {name}", name), strict=True))
        classes[name] = replace(
            whole,
            threshold=threshold,
            parts=parts[name],
            recalibration=recalibrate(here, threshold) if known and tables[0].KIND == FINDINGS else None,
            scores={named[told]: spread for told, spread in scores.items()},
            quality={},
            warned={},
        )
    return replace(whole, classes=classes)


def spread_of_quality(
    columns: Mapping[str, np.ndarray], titles: Mapping[str, tuple[str, str]], run: ImageQuality | None, told: Warnings
) -> dict[str, MeasureSpread]:
    """Returns every measure of the images beside those of the run; `titles` has what each is called, and its unit."""
    theirs = {} if run is None else {split: judged.measures for split, judged in run.splits.items()}
    outside = told.quality or {}
    return {
        name: MeasureSpread(
            *titles[name],
            training=theirs.get("train", {}).get(name),
            validation=theirs.get("val", {}).get(name),
            here=here,
            outside=int(outside[name].sum()) if name in outside else None,
        )
        for name, here in summarise(columns).items()
    }


def shares_warned(predictions: Predictions | ClassProbabilities, warnings: Warnings) -> dict[str, Measured]:
    """Returns which share of the images the network's features warn of, and which the quality, as far as known."""
    kinds = {"features": warnings.features, "quality": warnings.of_quality}
    return {name: share_of(predictions, name, flags) for name, flags in kinds.items() if flags is not None}


def write_external(path: str | Path, external: External) -> None:
    """Writes external.json atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **fields_to_json(external)})


def read_external(path: str | Path) -> External:
    """Reads external.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    advice = "evaluate the run on these data again"
    return read_record(path, External, version=SCHEMA_VERSION, where="it", advice=advice)
