"""What a network gained and forgot by learning on: its calls before and after, on the same images, as a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxr_jax.evaluation.class_metrics import CLASS_METRICS
from cxr_jax.evaluation.class_points import ClassPoints
from cxr_jax.evaluation.compare_classes import ClassRecipe, compare_classes
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Answer, At, Comparison, Endpoint
from cxr_jax.evaluation.finding_cases import FINDING_METRICS
from cxr_jax.evaluation.metrics import METRICS
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.evaluation.recipe_draws import Recipe
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.files import write_json
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import EXCLUSIVE, Kind

SCHEMA_VERSION = 1
"""Version of change.json."""

BEFORE, AFTER = "before", "after"

SHOWN = ("roc_auc", "balanced_accuracy", "sensitivity", "specificity")
"""Metrics of two classes that are told, in their order."""

_OF_EACH = ("roc_auc", "sensitivity", "specificity")
_TOGETHER = (
    "macro_roc_auc",
    "macro_average_precision",
    "balanced_accuracy",
    "macro_sensitivity",
    "macro_specificity",
)
"""Those of each of several classes, and of several together."""

_OF_SEVERAL = FINDING_METRICS | CLASS_METRICS

AREAS = ("roc_auc", "macro_roc_auc")
"""Those of which a sentence is said; one set of data has one of them."""

Predicted = tuple[Predictions | ClassProbabilities, OperatingPoint | ClassPoints | None]
"""The predictions of a run, and what it fixed on validation; None without that."""


@dataclass(frozen=True)
class ChangedMetric:
    """A metric before and after, and their difference; `title` is its name for a reader."""

    metric: str
    title: str
    before: float
    after: float
    answer: Answer


@dataclass(frozen=True)
class Change:
    """The test images of one set of data, called before and after.

    Attributes:
        data: name of the data.
        fingerprint: of them.
        comparison: of the recipes `before` and `after`, each at the threshold of its own run; of other classes than
            NORMAL and PNEUMONIA, or of findings, all together.
        classes: each of those against the rest, or each finding on the images of which it is known, by name.
        kind_of_classes: whether those exclude each other, or are findings.
    """

    data: str
    fingerprint: str
    comparison: Comparison
    classes: dict[str, Comparison] = field(default_factory=dict)
    kind_of_classes: Kind = EXCLUSIVE

    @property
    def told(self) -> tuple[ChangedMetric, ...]:
        """Each metric that both have."""
        if not self.classes:
            titles = {key: endpoint.title for key, endpoint in self.comparison.endpoints.items()}
            return tuple(_told(self.comparison, SHOWN, titles))
        found = _told(self.comparison, _TOGETHER, {name: metric.title for name, metric in _OF_SEVERAL.items()})
        for of_class, comparison in self.classes.items():
            found += _told(comparison, _OF_EACH, {name: f"{METRICS[name].title}, {of_class}" for name in _OF_EACH})
        return tuple(found)


def _told(comparison: Comparison, metrics: Sequence[str], titles: Mapping[str, str]) -> list[ChangedMetric]:
    """Returns those of the metrics that before and after have; `titles` are by metric, or by `Endpoint.key`."""
    places: list[At | None] = [None, *(at for at in ("operating_point", "call", "half") if comparison.has(at))]
    (pair,) = comparison.pairs
    found = []
    for metric in metrics:
        keys = [Endpoint(metric, at).key for at in places]
        key = next((key for key in keys if pair.endpoints.get(key) is not None), None)
        if key is not None:
            before, after = (comparison.recipes[name].endpoints[key].mean for name in (BEFORE, AFTER))
            title = titles.get(key) or titles[metric]
            found.append(ChangedMetric(metric, title, before, after, pair.endpoints[key]))
    return found


@dataclass(frozen=True)
class Changes:
    """The contents of change.json.

    Attributes:
        origin: the run that it learned on from, as the command was told of it.
        new: on the test images of the data that it learned on from; None if the origin is not there.
        old: on the test images of the data that the origin was trained on; None if they are not there.
    """

    origin: str
    new: Change | None
    old: Change | None


def change_between(data: str, fingerprint: str, before: Predicted, after: Predicted) -> Change:
    """Returns how calls on the same images changed, of NORMAL and PNEUMONIA, of other classes, or of findings.

    Raises:
        UserError: the tables are not of the same images or classes, or nothing can be ranked on these images.
    """
    named = ((BEFORE, *before), (AFTER, *after))
    if isinstance(before[0], Predictions):
        recipes = [Recipe(name, (table,), _one(point and point.threshold)) for name, table, point in named]
        return Change(data, fingerprint, compare(recipes, reference=BEFORE))
    found = compare_classes(
        [ClassRecipe(name, (table,), points=_one(points)) for name, table, points in named], reference=BEFORE
    )
    return Change(data, fingerprint, found.together, found.classes, found.kind_of_classes)


def _one(value: object | None) -> tuple | None:
    return None if value is None else (value,)


def write_changes(path: str | Path, changes: Changes) -> None:
    """Writes change.json atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **fields_to_json(changes)})


def read_changes(path: str | Path) -> Changes:
    """Reads change.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    return read_record(path, Changes, version=SCHEMA_VERSION, where="it", advice="evaluate the run again")
