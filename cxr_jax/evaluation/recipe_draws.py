"""What every recipe of a comparison gives on the images, and on draws of their groups that are equal for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.class_metrics import ClassMetric
from cxr_jax.evaluation.comparison_record import HALF, At, Endpoint
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import DEFINED, Interval, bootstrap_weights, wilson_interval_of_groups
from cxr_jax.evaluation.metrics import METRICS, Metric
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.evaluation.paired import auc_covariance
from cxr_jax.evaluation.rule_draws import VALUES_AT_ONCE, RuledNetwork, draw_rule
from cxr_jax.runs.predictions import Predictions

# Resamples computed at once, so that many images do not fill the memory.
DRAWS_AT_ONCE = 250


@dataclass(frozen=True)
class Ruled:
    """The rule of a recipe: predictions on validation, and the operating point that was chosen on them, by seed."""

    validation: tuple[Predictions, ...]
    points: tuple[OperatingPoint, ...]


@dataclass(frozen=True)
class Recipe:
    """Runs of one recipe that differ in their seed: their predictions on the same images, and their thresholds.

    Attributes:
        name: what tables and figures call it.
        tables: predictions, one table a seed.
        thresholds: the operating point of every seed, fixed before the images were seen; None where there is none.
        rule: how they were chosen; None where that cannot be done again.
        called: of one class among several, the images that every seed calls so, masks [N]; None where a threshold alone
            says what is called.
    """

    name: str
    tables: tuple[Predictions, ...]
    thresholds: tuple[float, ...] | None = None
    rule: Ruled | None = None
    called: tuple[np.ndarray, ...] | None = None

    def __post_init__(self) -> None:
        if not self.tables:
            raise ValueError(f"{self.name}: no table")
        if self.thresholds is not None and len(self.tables) != len(self.thresholds):
            raise ValueError(f"{self.name}: {len(self.tables)} tables with {len(self.thresholds)} thresholds")

    @property
    def metrics(self) -> Mapping[str, Metric | ClassMetric]:
        """What `Endpoint.metric` names."""
        return METRICS

    @property
    def networks(self) -> list[RuledNetwork]:
        """The networks of the seeds with their rule; none without a rule."""
        if self.rule is None:
            return []
        return [
            RuledNetwork(validation, test, point)
            for validation, test, point in zip(self.rule.validation, self.tables, self.rule.points, strict=True)
        ]

    def cases(self, at: At | None, weights: np.ndarray) -> list[Cases]:
        """Returns the images of every seed at a threshold, under weights [R, N]; none where it has no such threshold.

        At the rule it is the threshold that the rule gave.
        """
        if at == "call":
            calls = zip(self.tables, self.called or (), strict=True)
            return [Cases(table.label, called.astype(np.float64), HALF, weights) for table, called in calls]
        half = [Cases(table.label, table.probability, HALF, weights) for table in self.tables]
        if at in (None, "half"):
            return half
        if self.thresholds is None or (at == "rule" and self.rule is None):
            return []
        pairs = zip(half, self.thresholds, strict=True)
        return [dataclasses.replace(cases, threshold=threshold) for cases, threshold in pairs]

    @property
    def scores(self) -> np.ndarray:
        """Probabilities, float64 [seeds, N]."""
        return np.stack([table.probability for table in self.tables])

    @property
    def clusters(self) -> np.ndarray | None:
        """Groups of the images, int [N]; None without groups."""
        return self.tables[0].clusters() if self.tables[0].has_groups else None


@dataclass(frozen=True)
class Estimate:
    """A recipe with what it gives, by `Endpoint.key`; an endpoint that it does not have is missing.

    Attributes:
        recipe: it.
        values: of every seed, float64 [seeds].
        resampled: of every seed in the draws that covariances are taken from, float64 [seeds, resamples]; the ROC-AUC
            of two classes, whose covariance has a formula, is missing.
        means: over seeds in all draws, float64 [draws]; those of `resampled` come first.
    """

    recipe: Recipe
    values: dict[str, np.ndarray]
    resampled: dict[str, np.ndarray]
    means: dict[str, np.ndarray]


def estimate(
    recipes: Sequence[Recipe], endpoints: Sequence[Endpoint], confidence: Confidence, *, draws: int
) -> list[Estimate]:
    """Returns what every recipe gives on the images and on draws of groups, which are equal for all.

    Args:
        recipes: rows in one order, groups equal.
        endpoints: what is computed.
        confidence: resamples and seed.
        draws: how many are made of the metrics that cost little. Those that rank the images, and what is given at a
            threshold that is set anew in every draw, have as many as `confidence` says.
    """
    table = recipes[0].tables[0]
    plain = [endpoint for endpoint in endpoints if endpoint.at != "rule" and endpoint.metric != "roc_auc"]
    cheap = [endpoint for endpoint in plain if not endpoint.metric.endswith(("roc_auc", "average_precision"))]
    at_once = max(1, min(DRAWS_AT_ONCE, VALUES_AT_ONCE // np.size(table.label)))
    random, clusters = np.random.default_rng(confidence.seed), table.clusters()
    resampled: list[dict[str, list[np.ndarray]]] = [{} for _ in recipes]
    means: list[dict[str, list[np.ndarray]]] = [{} for _ in recipes]
    done = 0
    while done < draws:
        first = done < confidence.resamples
        count = min(at_once, (confidence.resamples if first else draws) - done)
        weights = bootstrap_weights(clusters, count, random)
        for recipe, kept, mean in zip(recipes, resampled, means, strict=True):
            for key, drawn in _values(recipe, plain if first else cheap, weights).items():
                mean.setdefault(key, []).append(drawn.mean(axis=0))
                if first:
                    kept.setdefault(key, []).append(drawn)
        done += count
    ruled = _rule_draws(recipes, [endpoint for endpoint in endpoints if endpoint.at == "rule"], confidence)
    ones = np.ones((1, len(table)))
    return [
        Estimate(
            recipe,
            {key: drawn[:, 0] for key, drawn in _values(recipe, endpoints, ones).items()},
            {key: np.concatenate(parts, axis=1) for key, parts in kept.items()} | rule,
            {key: np.concatenate(parts) for key, parts in mean.items()}
            | {key: drawn.mean(axis=0) for key, drawn in rule.items()},
        )
        for recipe, kept, mean, rule in zip(recipes, resampled, means, ruled, strict=True)
    ]


def _rule_draws(
    recipes: Sequence[Recipe], endpoints: Sequence[Endpoint], confidence: Confidence
) -> list[dict[str, np.ndarray]]:
    """Returns, for every recipe, the endpoints of its rule in every draw of validation and test: [seeds, resamples]."""
    networks = [network for recipe in recipes for network in recipe.networks] if endpoints else []
    if not networks:
        return [{} for _ in recipes]
    drawn = draw_rule(networks, [endpoint.metric for endpoint in endpoints], confidence).values
    ends = np.cumsum([len(recipe.networks) for recipe in recipes])
    return [
        {endpoint.key: drawn[endpoint.metric][end - len(recipe.networks) : end] for endpoint in endpoints}
        if recipe.rule is not None
        else {}
        for recipe, end in zip(recipes, ends, strict=True)
    ]


def _values(recipe: Recipe, endpoints: Sequence[Endpoint], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns every endpoint that the recipe has, of every seed under weights [R, N]: float64 [seeds, R] by key.

    What a rule gives on the images themselves is what its threshold gives.
    """
    cases = {at: recipe.cases(at, weights) for at in {endpoint.at for endpoint in endpoints}}
    return {
        endpoint.key: np.stack([recipe.metrics[endpoint.metric].function(seed) for seed in cases[endpoint.at]])
        for endpoint in endpoints
        if cases[endpoint.at]
    }


def share_interval(recipe: Recipe, endpoint: Endpoint, level: float) -> Interval | None:
    """Returns Wilson's interval of a mean over seeds that is a share of images, for these very networks.

    An image counts by the share of seeds that call it so. None for what is no share, or not one of the same images in
    every seed, and for a threshold that is not given.
    """
    proportion = recipe.metrics[endpoint.metric].proportion
    if proportion is None or endpoint.at == "rule":
        return None
    masks = [proportion(cases) for cases in recipe.cases(endpoint.at, np.ones((1, len(recipe.tables[0]))))]
    among = masks[0][1]
    if any((other != among).any() for _, other in masks):
        return None
    counted = np.mean([counted[among] for counted, _ in masks], axis=0)
    if recipe.clusters is not None:
        return wilson_interval_of_groups(counted, recipe.clusters[among], level=level)
    found = wilson_interval_of_groups(counted, np.arange(len(counted)), level=level)
    return None if found is None else dataclasses.replace(found, method="Wilson")


def covariance(estimates: Sequence[Estimate], endpoint: Endpoint) -> np.ndarray | None:
    """Returns the covariance over patients of the seeds of one recipe or several, [seeds of all] squared.

    None where it is not known: a class has fewer than two groups, or fewer than nine draws in ten give a value.
    """
    recipes = [estimate.recipe for estimate in estimates]
    if endpoint.metric == "roc_auc":
        scores = np.concatenate([recipe.scores for recipe in recipes])
        estimated = auc_covariance(recipes[0].tables[0].label, scores, recipes[0].clusters)
        return None if estimated is None else estimated[1]
    drawn = np.concatenate([estimate.resampled[endpoint.key] for estimate in estimates])
    defined = ~np.isnan(drawn).any(axis=0)
    return np.atleast_2d(np.cov(drawn[:, defined])) if defined.mean() >= DEFINED else None
