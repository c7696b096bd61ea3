"""What a network gained and forgot by learning on: its calls before and after, on the same images, as a record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Answer, Comparison
from cxr_jax.evaluation.recipe_draws import Recipe
from cxr_jax.runs.files import write_json
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import fields_to_json, read_record

SCHEMA_VERSION = 1
"""Version of change.json."""

BEFORE, AFTER = "before", "after"

SHOWN = ("roc_auc", "balanced_accuracy", "sensitivity", "specificity")
"""Metrics that are told, in their order."""


@dataclass(frozen=True)
class Change:
    """The test images of one set of data, called before and after.

    Attributes:
        data: name of the data.
        fingerprint: of them.
        comparison: of the recipes `before` and `after`, each at the threshold of its own run.
    """

    data: str
    fingerprint: str
    comparison: Comparison

    @property
    def told(self) -> dict[str, tuple[float, float, Answer]]:
        """Before, after and their difference of each metric that both have, by its title."""
        at = "operating_point" if self.comparison.has("operating_point") else "half"
        (pair,) = self.comparison.pairs
        found = {}
        for metric in SHOWN:
            key = metric if metric in self.comparison.endpoints else f"{metric}@{at}"
            summaries = [self.comparison.recipes[name].endpoints.get(key) for name in (BEFORE, AFTER)]
            answer = pair.endpoints.get(key)
            if answer is not None and None not in summaries:
                found[self.comparison.endpoints[key].title] = (*(summary.mean for summary in summaries), answer)
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


def change_between(
    data: str, fingerprint: str, before: tuple[Predictions, float | None], after: tuple[Predictions, float | None]
) -> Change:
    """Returns how calls on the same images changed; each is a table with the threshold of its run, None without one.

    Raises:
        UserError: the tables are not of the same images.
    """
    recipes = [
        Recipe(name, (table,), None if threshold is None else (threshold,))
        for name, (table, threshold) in ((BEFORE, before), (AFTER, after))
    ]
    return Change(data, fingerprint, compare(recipes, reference=BEFORE))


def write_changes(path: str | Path, changes: Changes) -> None:
    """Writes change.json atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **fields_to_json(changes)})


def read_changes(path: str | Path) -> Changes:
    """Reads change.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    return read_record(path, Changes, version=SCHEMA_VERSION, where="it", advice="evaluate the run again")
