"""Is one recipe better than another? Every metric of several recipes on the same images, and every pair of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases, calls_of
from cxr_jax.evaluation.comparison_record import (
    FREE,
    HALF,
    AdjustedDifferenceOverSeeds,
    Answer,
    Comparison,
    Correction,
    Endpoint,
    EndpointSummary,
    Pair,
    RecipeSummary,
    endpoints_at,
)
from cxr_jax.evaluation.intervals import bootstrap_weights, percentile_interval
from cxr_jax.evaluation.measures import Confidence
from cxr_jax.evaluation.metrics import METRICS
from cxr_jax.evaluation.paired import (
    McNemar,
    auc_covariance,
    bootstrap_p_value,
    compare_auc,
    difference_over_seeds,
    holm,
    mcnemar,
)
from cxr_jax.evaluation.seeds import mean_auc_interval, same_images, spread
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import PNEUMONIA

# Resamples computed at once, so that many images do not fill the memory.
_CHUNK = 250


@dataclass(frozen=True)
class Recipe:
    """Runs of one recipe that differ in their seed: their predictions on the same images, and their thresholds.

    Attributes:
        name: what tables and figures call it.
        tables: predictions, one table a seed.
        thresholds: the operating point of every seed, fixed before the images were seen; None where there is none.
    """

    name: str
    tables: tuple[Predictions, ...]
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.tables:
            raise ValueError(f"{self.name}: no table")
        if self.thresholds is not None and len(self.tables) != len(self.thresholds):
            raise ValueError(f"{self.name}: {len(self.tables)} tables with {len(self.thresholds)} thresholds")


def compare(
    recipes: Sequence[Recipe], confidence: Confidence | None = None, *, reference: str | None = None
) -> Comparison:
    """Compares recipes on the same images: every pair, or each with the one called `reference`.

    Metrics are means over the seeds of a recipe, never metrics of an ensemble of them. Intervals and tests of these
    means stand for other patients and for these very networks; `over_seeds` stands for other patients and for networks
    trained again with other seeds. Thresholds are taken as given.

    ROC-AUC is tested by `compare_auc`, accuracy by `mcnemar`, any other metric by a bootstrap of groups with equal
    draws for all recipes. P-values are adjusted by Holm's method.

    Raises:
        UserError: two recipes have one name, `reference` is none of them, or tables are over different images.
    """
    confidence = confidence or Confidence()
    recipes = _aligned(recipes)
    names = [recipe.name for recipe in recipes]
    if reference is not None and reference not in names:
        raise UserError(f"the reference {reference} is none of the recipes: {', '.join(names)}")
    endpoints = _endpoints(recipes)
    estimates = {recipe.name: _estimate(recipe, endpoints, confidence) for recipe in recipes}
    if reference is None:
        pairs = list(combinations(names, 2))
    else:
        pairs = [(name, reference) for name in names if name != reference]
    answers = {
        endpoint.key: _adjusted(
            [_answer(estimates[first], estimates[second], endpoint, confidence.level) for first, second in pairs]
        )
        for endpoint in endpoints
    }
    first = recipes[0].tables[0]
    return Comparison(
        images=len(first),
        pneumonia=int(np.sum(first.label == PNEUMONIA)),
        groups=len(np.unique(first.clusters())) if first.has_groups else None,
        confidence=confidence,
        correction=Correction("Holm 1979", len(pairs)),
        endpoints={endpoint.key: endpoint for endpoint in endpoints},
        recipes={name: _summary(estimate, endpoints, confidence.level) for name, estimate in estimates.items()},
        pairs=tuple(
            Pair(first, second, {key: entries[index] for key, entries in answers.items()})
            for index, (first, second) in enumerate(pairs)
        ),
    )


def _aligned(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Return the recipes with all rows in one order and all groups equal."""
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two recipes are called {twice}: give them different names")
    flat = [(recipe.name, table) for recipe in recipes for table in recipe.tables]
    tables = iter(same_images([table for _, table in flat], [name for name, _ in flat]))
    return [dataclasses.replace(recipe, tables=tuple(next(tables) for _ in recipe.tables)) for recipe in recipes]


def _endpoints(recipes: Sequence[Recipe]) -> tuple[Endpoint, ...]:
    thresholds = [threshold for recipe in recipes for threshold in recipe.thresholds or ()]
    differing = any(threshold != HALF for threshold in thresholds)
    return FREE + endpoints_at("half") + (endpoints_at("operating_point") if differing else ())


@dataclass(frozen=True)
class _Estimate:
    """A recipe with the value of every endpoint: float64 [seeds], and [seeds, resamples] under equal draws for all."""

    recipe: Recipe
    values: dict[str, np.ndarray]
    resampled: dict[str, np.ndarray]


def _estimate(recipe: Recipe, endpoints: Sequence[Endpoint], confidence: Confidence) -> _Estimate:
    table = recipe.tables[0]
    values = {key: entry[:, 0] for key, entry in _values(recipe, endpoints, np.ones((1, len(table)))).items()}
    parts: dict[str, list[np.ndarray]] = {key: [] for key in values}
    random, clusters = np.random.default_rng(confidence.seed), table.clusters()
    for start in range(0, confidence.resamples, _CHUNK):
        weights = bootstrap_weights(clusters, min(_CHUNK, confidence.resamples - start), random)
        for key, entry in _values(recipe, endpoints, weights).items():
            parts[key].append(entry)
    return _Estimate(recipe, values, {key: np.concatenate(entry, axis=1) for key, entry in parts.items()})


def _values(recipe: Recipe, endpoints: Sequence[Endpoint], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return every endpoint that the recipe has, of every seed under weights [R, N]: float64 [seeds, R] by key."""
    seeds = []
    for seed, table in enumerate(recipe.tables):
        half = Cases(table.label, table.probability, HALF, weights)
        cases = {None: half, "half": half}
        if recipe.thresholds is not None:
            cases["operating_point"] = dataclasses.replace(half, threshold=recipe.thresholds[seed])
        seeds.append({e.key: METRICS[e.metric].function(cases[e.at]) for e in endpoints if e.at in cases})
    return {key: np.stack([values[key] for values in seeds]) for key in seeds[0]}


def _summary(estimate: _Estimate, endpoints: Sequence[Endpoint], level: float) -> RecipeSummary:
    recipe = estimate.recipe
    return RecipeSummary(
        seeds=len(recipe.tables),
        thresholds=recipe.thresholds,
        endpoints={endpoint.key: _endpoint_summary(estimate, endpoint, level) for endpoint in endpoints},
    )


def _endpoint_summary(estimate: _Estimate, endpoint: Endpoint, level: float) -> EndpointSummary | None:
    """Returns one endpoint of a recipe; None where a seed has no value."""
    recipe, values = estimate.recipe, estimate.values.get(endpoint.key)
    if values is None or np.isnan(values).any():
        return None
    found = spread(values.tolist())
    if endpoint.metric == "roc_auc":
        interval = mean_auc_interval(recipe.tables, level)
    else:
        drawn = estimate.resampled[endpoint.key].mean(axis=0)
        interval = percentile_interval(drawn, found.mean, level, _bootstrap_name(recipe))
    return EndpointSummary(tuple(values.tolist()), found.mean, found.deviation, interval)


def _answer(first: _Estimate, second: _Estimate, endpoint: Endpoint, level: float) -> Answer | None:
    """Returns what is to be said of one endpoint of a pair, not yet adjusted; None where a seed has no value."""
    key = endpoint.key
    if key not in first.values or key not in second.values:
        return None
    values = first.values[key], second.values[key]
    if np.isnan(np.concatenate(values)).any():
        return None
    drawn = first.resampled[key].mean(axis=0) - second.resampled[key].mean(axis=0)
    name, difference = _bootstrap_name(first.recipe), float(values[0].mean() - values[1].mean())
    answer = Answer(
        difference=difference,
        interval=percentile_interval(drawn, difference, level, name),
        test=name,
        p_value=bootstrap_p_value(drawn),
        over_seeds=_over_seeds(first, second, endpoint, level),
    )
    if endpoint.metric == "accuracy":
        test = _mcnemar(first.recipe, second.recipe, endpoint)
        return dataclasses.replace(
            answer,
            test=test.method,
            p_value=test.p_value,
            only_first_right=test.only_first_right,
            only_second_right=test.only_second_right,
        )
    if endpoint.metric == "roc_auc":
        label, scores, clusters = _scores(first.recipe, second.recipe)
        compared = compare_auc(label, *scores, clusters, level)
        return dataclasses.replace(
            answer,
            test="DeLong" if clusters is None else "Obuchowski",
            interval=None if compared is None else compared.interval,
            p_value=None if compared is None else compared.p_value,
        )
    return answer


def _over_seeds(
    first: _Estimate, second: _Estimate, endpoint: Endpoint, level: float
) -> AdjustedDifferenceOverSeeds | None:
    """Returns the difference over seeds; its interval ends where the difference can, as Student's knows no bounds."""
    covariance = _covariance(first, second, endpoint)
    if covariance is None:
        return None
    found = difference_over_seeds(first.values[endpoint.key], second.values[endpoint.key], covariance, level)
    if found is None:
        return None
    most = {"log_loss": np.inf, "matthews_correlation": 2.0}.get(endpoint.metric, 1.0)
    bounded = dataclasses.replace(
        found.interval, low=max(found.interval.low, -most), high=min(found.interval.high, most)
    )
    return AdjustedDifferenceOverSeeds(bounded, found.p_value, found.degrees_of_freedom)


def _covariance(first: _Estimate, second: _Estimate, endpoint: Endpoint) -> np.ndarray | None:
    """Return the covariance over patients of all seeds of two recipes, [S1 + S2] squared; None if it is unknown."""
    if endpoint.metric == "roc_auc":
        label, scores, clusters = _scores(first.recipe, second.recipe)
        estimated = auc_covariance(label, np.concatenate(scores), clusters)
        return None if estimated is None else estimated[1]
    drawn = np.concatenate([first.resampled[endpoint.key], second.resampled[endpoint.key]])
    defined = ~np.isnan(drawn).any(axis=0)
    # The share below which `percentile_interval` gives up too.
    return np.atleast_2d(np.cov(drawn[:, defined])) if defined.mean() >= 0.9 else None


def _scores(first: Recipe, second: Recipe) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray | None]:
    """Return labels [N], the probabilities [seeds, N] of both, and clusters [N] or None without groups."""
    table = first.tables[0]
    scores = tuple(np.stack([table.probability for table in recipe.tables]) for recipe in (first, second))
    return table.label, scores, table.clusters() if table.has_groups else None


def _mcnemar(first: Recipe, second: Recipe, endpoint: Endpoint) -> McNemar:
    right = []
    for recipe in (first, second):
        thresholds = recipe.thresholds if endpoint.at == "operating_point" else [HALF] * len(recipe.tables)
        calls = [calls_of(table.probability, at) for table, at in zip(recipe.tables, thresholds or (), strict=True)]
        right.append(np.stack(calls) == (recipe.tables[0].label == PNEUMONIA))
    table = first.tables[0]
    return mcnemar(*right, table.clusters() if table.has_groups else None)


def _bootstrap_name(recipe: Recipe) -> str:
    return "group bootstrap" if recipe.tables[0].has_groups else "bootstrap"


def _adjusted(answers: Sequence[Answer | None]) -> list[Answer | None]:
    """Returns the answers of one endpoint with adjusted p-values, those over seeds adjusted by themselves."""
    found = [answer for answer in answers if answer is not None]
    plain = _holm([answer.p_value for answer in found])
    again = _holm([answer.over_seeds and answer.over_seeds.p_value for answer in found])
    adjusted = iter(
        dataclasses.replace(
            answer,
            adjusted_p_value=p_value,
            over_seeds=answer.over_seeds and dataclasses.replace(answer.over_seeds, adjusted_p_value=over_seeds),
        )
        for answer, p_value, over_seeds in zip(found, plain, again, strict=True)
    )
    return [None if answer is None else next(adjusted) for answer in answers]


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns adjusted p-values in their order; None stays None and does not count."""
    adjusted = iter(holm([p_value for p_value in p_values if p_value is not None]))
    return [None if p_value is None else next(adjusted) for p_value in p_values]
