"""What is left of a network's calls on degraded images, and the one number that sums it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cxr_jax.evaluation.cases import calls_of
from cxr_jax.evaluation.class_points import against_the_rest
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.conformal import SetRule
from cxr_jax.evaluation.intervals import Interval, bootstrap_weights, percentile_interval
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.rates import class_rates_of, rates_of
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import NORMAL, PNEUMONIA

SCHEMA_VERSION = 1
"""Version of robustness.json."""


@dataclass(frozen=True)
class Level:
    """What a network is worth on images of one kind and severity; `clean` at severity 0 are the images as they are.

    Attributes:
        kind: of degradation.
        severity: 0 to 5.
        roc_auc: of the ranking.
        sensitivity: at the fixed threshold.
        specificity: at the fixed threshold.
        covered: share whose set of possible classes holds their own; None without bounds.
        uncertain: share whose called class is not the only possible one; None without bounds.
        unlike: share beyond the limit of the network's features; None where it tells no distance.
        accuracy: of the highest probability of several exclusive classes; None of one class, and of findings.
    """

    kind: str
    severity: int
    roc_auc: Measured
    sensitivity: Measured
    specificity: Measured
    covered: Measured | None = None
    uncertain: Measured | None = None
    unlike: Measured | None = None
    accuracy: Measured | None = None

    @property
    def error(self) -> float | None:
        """1 minus balanced accuracy; None where a class is missing."""
        if self.sensitivity.value is None or self.specificity.value is None:
            return None
        return 1 - (self.sensitivity.value + self.specificity.value) / 2


@dataclass(frozen=True)
class Robustness:
    """The contents of robustness.json.

    Attributes:
        split: that was degraded.
        images: how many it has.
        threshold: fixed on validation as it is; None of several classes, which have one each.
        seed: of the degradations.
        checkpoint_sha256: of the network.
        clean: the images as they are.
        levels: every kind at every severity.
        mean_error: the error on degraded images, a mean over severities and then over kinds.
        reference: name of the run that errors are told relative to; empty without one.
        mean_corruption_error: the error of each kind, summed over severities, as a share of the reference's; the mean
            over kinds (Hendrycks & Dietterich, ICLR 2019). None without reference, or where one of its sums is 0.
        classes: each class against the rest, or each finding, by name, where they are not NORMAL and PNEUMONIA; the
            figures beside it are then the means over them.
        mean_error_interval: for other patients; None of a mean over classes, and where a class is missing.
        wrong: share of an image's degraded copies that are called wrongly, by its file; empty of a mean over classes.
        less_reference: the mean error less the reference's, paired image by image; None where `wrong` of either lacks.
    """

    split: Literal["val", "test"]
    images: int
    threshold: float | None
    seed: int
    checkpoint_sha256: str
    clean: Level
    levels: tuple[Level, ...]
    mean_error: float | None
    reference: str = ""
    mean_corruption_error: float | None = None
    classes: dict[str, Robustness] = field(default_factory=dict)
    mean_error_interval: Interval | None = None
    wrong: dict[str, float] = field(default_factory=dict)
    less_reference: Measured | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the degradations, in their order."""
        return tuple(dict.fromkeys(level.kind for level in self.levels))

    def of(self, kind: str) -> tuple[Level, ...]:
        """Returns the levels of one kind, the mildest first."""
        return tuple(level for level in self.levels if level.kind == kind)

    def error_of(self, kind: str) -> float | None:
        """Returns the mean error of one kind over severities."""
        return _mean([level.error for level in self.of(kind)])


def mean_error(levels: Sequence[Level]) -> float | None:
    """Returns the mean error over severities and then over kinds; None where one is undefined."""
    kinds = dict.fromkeys(level.kind for level in levels)
    return _mean([_mean([level.error for level in levels if level.kind == kind]) for kind in kinds])


def mean_corruption_error(levels: Sequence[Level], reference: Robustness) -> float | None:
    """Returns the mean over kinds of the summed errors as shares of the reference's; None where one is undefined."""
    shares: list[float | None] = []
    for kind in dict.fromkeys(level.kind for level in levels):
        own = _mean([level.error for level in levels if level.kind == kind])
        theirs = reference.error_of(kind)
        shares.append(None if own is None or not theirs else own / theirs)
    return _mean(shares)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def wrongly_called(
    predictions: Predictions | ClassProbabilities, thresholds: float | Mapping[str, float]
) -> dict[str, tuple[Predictions, np.ndarray]]:
    """Returns images of two classes and which of them are called wrongly, bool [N]: of each class against the rest.

    NORMAL and PNEUMONIA stand under the empty name. A finding has the images of which it is known, if there is one.
    """
    if isinstance(predictions, Predictions):
        tables, thresholds = {"": predictions}, {"": thresholds}
    else:
        known = [name for name in predictions.classes if predictions.asked(name)[0].any()]
        tables = {name: against_the_rest(predictions, name) for name in known}
    return {
        name: (table, calls_of(table.probability, thresholds[name]) != (table.label == PNEUMONIA))
        for name, table in tables.items()
    }


def mean_over_classes(images: Predictions, values: np.ndarray, title: str, confidence: Confidence) -> Measured:
    """Returns the mean of `values` [N] over the images of a class, and then over both, with an interval over groups.

    Of the share of wrong calls this is 1 minus balanced accuracy.
    """
    masks = [(images.label == label).astype(np.float64) for label in (NORMAL, PNEUMONIA)]
    if not all(mask.any() for mask in masks):
        return Measured(title, None, "the images lack a class", ())
    weights = bootstrap_weights(images.clusters(), confidence.resamples, np.random.default_rng(confidence.seed))
    with np.errstate(invalid="ignore"):
        # a draw without one of the classes is undefined
        drawn = np.mean([weights @ (values * mask) / (weights @ mask) for mask in masks], axis=0)
    value = float(np.mean([values[mask > 0].mean() for mask in masks]))
    method = "group bootstrap" if images.has_groups else "bootstrap"
    interval = percentile_interval(drawn, value, confidence.level, method)
    return Measured(title, value, None, (interval,) if interval else ())


def with_wrong_calls(
    robustness: Robustness,
    images: Predictions,
    wrong: np.ndarray,
    reference: Robustness | None = None,
    confidence: Confidence | None = None,
) -> Robustness:
    """Returns a record of two classes with the interval of its mean error, and its difference to the reference's.

    Args:
        robustness: the record.
        images: that were degraded.
        wrong: float64 [N], share of each image's degraded copies that are called wrongly.
        reference: the record of the run that errors are told relative to.
        confidence: of the intervals.
    """
    confidence = confidence or Confidence()
    own = mean_over_classes(images, wrong, "mean error", confidence)
    less = None
    if reference is not None and reference.wrong.keys() == set(images.file):
        theirs = np.array([reference.wrong[file] for file in images.file])
        less = mean_over_classes(images, wrong - theirs, "mean error less the reference's", confidence)
    shares = dict(zip(images.file, wrong.tolist(), strict=True))
    return replace(robustness, mean_error_interval=own.interval, wrong=shares, less_reference=less)


def level_of(
    kind: str,
    severity: int,
    predictions: Predictions,
    threshold: float,
    sets: SetRule | None = None,
    unlike: np.ndarray | None = None,
) -> Level:
    """Returns what predictions on degraded images are worth; `unlike` [N] says which are beyond the features' limit."""
    return Level(kind, severity, **vars(rates_of(predictions, threshold, sets, unlike)))


def class_levels_of(
    kind: str,
    severity: int,
    predictions: Predictions | ClassProbabilities,
    thresholds: float | Mapping[str, float],
    sets: SetRule | None = None,
    unlike: np.ndarray | None = None,
) -> dict[str, Level]:
    """Returns the levels of predictions of any classes: all together under the empty name, then each by its own."""
    rates = class_rates_of(predictions, thresholds, sets, unlike)
    return {name: Level(kind, severity, **vars(each)) for name, each in rates.items()}


def write_robustness(path: str | Path, robustness: Robustness) -> None:
    """Writes the record atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **fields_to_json(robustness)})


def read_robustness(path: str | Path) -> Robustness:
    """Reads a record of robustness.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    advice = "evaluate the run with --degraded again"
    return read_record(path, Robustness, version=SCHEMA_VERSION, where="it", advice=advice)


@dataclass(frozen=True)
class ToldKind:
    """One kind of degradation: what is left at its mildest and at its worst, and its mean error."""

    name: str
    mild: Level
    worst: Level
    error: float | None


def told_kinds(robustness: Robustness) -> tuple[ToldKind, ...]:
    """Returns every kind, the one that costs most first."""
    found = []
    for kind in robustness.kinds:
        mild, *_, worst = robustness.of(kind)
        found.append(ToldKind(kind, mild, worst, robustness.error_of(kind)))
    return tuple(sorted(found, key=lambda told: -(told.error or 0)))


def robustness_of(run: RunFolder) -> Robustness | None:
    """Returns the run's record on test, or else on validation; None if there is none."""
    found = (path for split in ("test", "val") if (path := run.robustness_of(split)).is_file())
    path = next(found, None)
    return None if path is None else read_robustness(path)
