"""Recipes of K exclusive classes, or of findings, on the same images: all classes together, and each by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_cases import ClassCases
from cxr_jax.evaluation.class_metrics import CLASS_METRICS, ClassMetric
from cxr_jax.evaluation.class_points import ClassPoints, against_the_rest
from cxr_jax.evaluation.comparison import adjusted, aligned, compare_aligned, endpoints_of, pairs_of
from cxr_jax.evaluation.comparison_record import HALF, At, ClassComparison, Endpoint
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.finding_cases import FINDING_METRICS, FindingCases
from cxr_jax.evaluation.recipe_draws import Recipe, Ruled
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.vocabulary import FINDINGS

_OF_PROBABILITIES = ("brier", "log_loss")


@dataclass(frozen=True)
class ClassRecipe(Recipe):
    """Runs of one recipe of K classes or findings; as a `Recipe` it has the metrics of all classes together.

    Attributes:
        tables: predictions, one table a seed.
        points: the operating points of every seed; None where there are none.
        validation: predictions that they were chosen on; None where that cannot be done again.
    """

    tables: tuple[ClassProbabilities, ...]
    points: tuple[ClassPoints, ...] | None = None
    validation: tuple[ClassProbabilities, ...] | None = None

    @property
    def of_findings(self) -> bool:
        """True where several classes may occur together."""
        return self.tables[0].KIND == FINDINGS

    @property
    def metrics(self) -> Mapping[str, ClassMetric]:
        """What `Endpoint.metric` names."""
        return FINDING_METRICS if self.of_findings else CLASS_METRICS

    def cases(self, at: At | None, weights: np.ndarray) -> list[ClassCases] | list[FindingCases]:
        """Returns the images of every seed under weights [R, N]; none where their thresholds are not known."""
        if not self.of_findings:
            return [ClassCases(table.label, table.probabilities, weights) for table in self.tables]
        thresholds = [np.full(len(table.classes), HALF) for table in self.tables]
        if at == "operating_point":
            names = self.tables[0].classes
            thresholds = [np.array([seed.classes[name].threshold for name in names]) for seed in self.points or ()]
            if not thresholds:
                return []
        pairs = zip(self.tables, thresholds, strict=True)
        return [FindingCases(table.label, table.probabilities, chosen, weights) for table, chosen in pairs]

    def of_class(self, name: str) -> Recipe:
        """Returns the recipe of one class against the rest, or of one finding on the images of which it is known."""
        called = None
        if not self.of_findings:
            called = tuple(table.called == table.classes.index(name) for table in self.tables)
        points = None if self.points is None else tuple(seed.classes[name] for seed in self.points)
        rule = None
        if points and self.validation and all(table.asked(name)[0].any() for table in self.validation):
            rule = Ruled(tuple(against_the_rest(table, name) for table in self.validation), points)
        return Recipe(
            self.name,
            tuple(against_the_rest(table, name) for table in self.tables),
            thresholds=None if points is None else tuple(point.threshold for point in points),
            rule=rule,
            called=called,
        )


def compare_classes(
    recipes: Sequence[ClassRecipe], confidence: Confidence | None = None, *, reference: str | None = None
) -> ClassComparison:
    """Compares recipes of the same classes on the same images, as `compare` does those of NORMAL and PNEUMONIA.

    Each class is compared against the rest as if it were PNEUMONIA: where it has the highest probability, and from its
    own threshold on. P-values of it are adjusted over all pairs of all classes. Metrics of all classes together are
    tested by a bootstrap of groups, but accuracy, which is tested by `mcnemar`.

    Raises:
        UserError: as `compare`; or tables are of different classes, or nothing can be ranked on these images.
    """
    confidence = confidence or Confidence()
    names = [recipe.name for recipe in recipes for _ in recipe.tables]
    tables = iter(with_equal_classes([table for recipe in recipes for table in recipe.tables], names))
    recipes = aligned([dataclasses.replace(one, tables=tuple(next(tables) for _ in one.tables)) for one in recipes])
    pairs = pairs_of(recipes, reference)
    first = recipes[0].tables[0]
    ranked = [name for name in first.classes if len(np.unique(first.asked(name)[1])) > 1]
    if not ranked:
        raise UserError(
            f"the images show each of {', '.join(first.classes)} always or never: compare on images that differ"
        )
    alone = {name: [recipe.of_class(name) for recipe in recipes] for name in ranked}
    endpoints = endpoints_of([recipe for of_class in alone.values() for recipe in of_class])
    classes = adjusted([compare_aligned(of_class, pairs, endpoints, confidence) for of_class in alone.values()])
    (together,) = adjusted([compare_aligned(recipes, pairs, _together(recipes), confidence)])
    return ClassComparison(
        kind_of_classes=first.KIND,
        together=together,
        classes=dict(zip(ranked, classes, strict=True)),
        left_out=tuple(name for name in first.classes if name not in ranked),
    )


def with_equal_classes(tables: Sequence[ClassProbabilities], names: Sequence[str]) -> list[ClassProbabilities]:
    """Returns the tables with their classes in the order of the first; UserError if a table has others."""
    first, moved = tables[0], []
    for table, name in zip(tables, names, strict=True):
        if table.KIND != first.KIND:
            raise UserError(
                f"{names[0]} and {name} cannot be compared: one is of classes that exclude each other, the other of "
                "findings"
            )
        if set(table.classes) != set(first.classes):
            odd = sorted(set(table.classes) ^ set(first.classes))
            raise UserError(
                f"{names[0]} and {name} are of different classes ({', '.join(odd)} in one alone): "
                "compare recipes of the same"
            )
        moved.append(table.with_classes(first.classes))
    return moved


def _together(recipes: Sequence[ClassRecipe]) -> list[Endpoint]:
    """Returns what recipes are compared by for all classes together."""
    if not recipes[0].of_findings:
        return [Endpoint(name) for name, metric in CLASS_METRICS.items() if metric.parts is None]
    free = [name for name in FINDING_METRICS if name in _OF_PROBABILITIES or name.endswith(("auc", "precision"))]
    called = [name for name in FINDING_METRICS if name not in free]
    places: list[At] = ["half"]
    points = [point for recipe in recipes for seed in recipe.points or () for point in seed.classes.values()]
    if any(point.threshold != HALF for point in points):
        places.append("operating_point")
    return [*map(Endpoint, free), *(Endpoint(name, at) for at in places for name in called)]
