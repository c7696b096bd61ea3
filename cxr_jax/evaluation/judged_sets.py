"""What the sets of possible classes are worth on images of known class: coverage, and how many stay uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_jax.evaluation.cases import calls_of
from cxr_jax.evaluation.conformal import ConformalSets, SetRule, class_probabilities
from cxr_jax.evaluation.intervals import wilson_interval, wilson_interval_of_groups
from cxr_jax.evaluation.measures import Measured
from cxr_jax.runs.files import write_json
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import CLASS_NAMES

SCHEMA_VERSION = 1
"""Version of uncertainty.json."""

_NO_IMAGES = "there is no such image"


@dataclass(frozen=True)
class SetsOf:
    """What sets at one error rate are worth on some images.

    Attributes:
        name: of all images, of a class or of a subtype.
        images: how many there are.
        covered: share whose set holds their class; the promise is 1 minus the error rate, for each class.
        uncertain: share whose set is not the called class alone.
        wrong: share that is called wrongly and is not uncertain.
    """

    name: str
    images: int
    covered: Measured
    uncertain: Measured
    wrong: Measured


@dataclass(frozen=True)
class JudgedSets:
    """The sets at one error rate, on all images, on those of each class, and on those of each subtype."""

    error_rate: float
    rows: tuple[SetsOf, ...]

    def of(self, name: str) -> SetsOf:
        """Returns the row of that name."""
        return next(row for row in self.rows if row.name == name)


@dataclass(frozen=True)
class Uncertainty:
    """The contents of uncertainty.json: the sets on test, at every error rate."""

    test: tuple[JudgedSets, ...]

    def at(self, error_rate: float) -> JudgedSets:
        """Returns the sets at one error rate."""
        return next(judged for judged in self.test if judged.error_rate == error_rate)


def judge_uncertainty(sets: ConformalSets, test: Predictions, threshold: float) -> Uncertainty:
    """Returns what the sets are worth on test, beside the calls at `threshold`."""
    return Uncertainty(tuple(judge_sets(sets.rule(rate), test, threshold) for rate in sets.error_rates))


def judge_sets(rule: SetRule, predictions: Predictions, threshold: float) -> JudgedSets:
    """Returns what sets are worth on labelled predictions; intervals are over groups where there are any."""
    held = rule.sets(class_probabilities(predictions.probability))
    images, label = np.arange(len(predictions)), predictions.label
    called = calls_of(predictions.probability, threshold).astype(np.int64)
    covered = held[images, label]
    uncertain = ~(held[images, called] & (held.sum(axis=1) == 1))
    columns = {"covered": covered, "uncertain": uncertain, "wrong": ~uncertain & (called != label)}
    subtypes = np.array(predictions.subtype)
    rows = {"all": np.ones(len(images), bool)}
    rows |= {name: label == index for index, name in enumerate(CLASS_NAMES)}
    rows |= {name: subtypes == name for name in sorted(set(predictions.subtype)) if name not in ("normal", "unknown")}
    found = []
    for name, chosen in rows.items():
        shares = {title: _share(title, column, chosen, predictions) for title, column in columns.items()}
        found.append(SetsOf(name, int(chosen.sum()), **shares))
    return JudgedSets(rule.error_rate, tuple(found))


def _share(title: str, counted: np.ndarray, chosen: np.ndarray, predictions: Predictions) -> Measured:
    """Returns the share of the chosen images that are counted, with its intervals."""
    right = counted[chosen]
    if not len(right):
        return Measured(title, None, _NO_IMAGES, ())
    intervals = [wilson_interval(float(right.sum()), len(right))]
    if predictions.has_groups:
        intervals.insert(0, wilson_interval_of_groups(right, predictions.clusters()[chosen]))
    return Measured(title, float(right.mean()), None, tuple(found for found in intervals if found is not None))


def write_uncertainty(path: str | Path, uncertainty: Uncertainty) -> None:
    """Writes uncertainty.json atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **fields_to_json(uncertainty)})


def read_uncertainty(path: str | Path) -> Uncertainty:
    """Reads uncertainty.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    return read_record(path, Uncertainty, version=SCHEMA_VERSION, where="it", advice="evaluate the run again")
