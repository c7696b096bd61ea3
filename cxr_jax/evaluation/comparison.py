"""Is one recipe better than another? Every metric of several recipes on the same images, and every pair of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases, calls_of
from cxr_jax.evaluation.intervals import Interval, bootstrap_weights, percentile_interval
from cxr_jax.evaluation.measures import Confidence
from cxr_jax.evaluation.metrics import CALL_METRICS, METRICS, THRESHOLD_FREE
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

SCHEMA_VERSION = 2

HALF = 0.5
"""The threshold at which every recipe is compared, whatever it says of its own."""

At = Literal["half", "operating_point"]

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


@dataclass(frozen=True)
class Endpoint:
    """What recipes are compared by: a metric, and the threshold that it is computed at.

    `at` is `half` for 0.5, `operating_point` for the threshold of each run, None for a metric that needs none.
    """

    metric: str
    at: At | None = None

    @property
    def key(self) -> str:
        """Its name in a comparison, such as `roc_auc` or `accuracy@half`."""
        return self.metric if self.at is None else f"{self.metric}@{self.at}"

    @property
    def title(self) -> str:
        """Its name for a reader."""
        where = {None: "", "half": f" at {HALF:g}", "operating_point": " at the operating point"}[self.at]
        return METRICS[self.metric].title + where


FREE = tuple(Endpoint(name) for name in THRESHOLD_FREE)


def endpoints_at(at: At) -> tuple[Endpoint, ...]:
    """Return every metric that needs a threshold, at that one."""
    return tuple(Endpoint(name, at) for name in CALL_METRICS)


def compare(
    recipes: Sequence[Recipe], confidence: Confidence | None = None, *, reference: str | None = None
) -> dict[str, Any]:
    """Compare recipes on the same images: every pair, or each with the one called `reference`.

    Metrics are means over the seeds of a recipe, never metrics of an ensemble of them. Intervals and tests of these
    means stand for other patients and for these very networks; `over_seeds` stands for other patients and for networks
    trained again with other seeds. Thresholds are taken as given.

    Returns:
        An object for JSON:

        - `schema_version`, `images`, `pneumonia` (how many of them), `groups` (how many; None if unknown), `confidence`
        - `correction`: `method` (Holm 1979) and `comparisons`, the number of pairs; p-values of one endpoint are
          adjusted together over all pairs, those over seeds by themselves, and different endpoints not for each other
        - `endpoints`: by `Endpoint.key`, each with `metric`, `at` and `title`; the operating point is left out if it is
          0.5 in every run, or nowhere known
        - `recipes`: by name `seeds`, `thresholds` and `endpoints`, each with `values` (by seed), `mean`, `deviation`
          and `interval`; None where a seed has no value, or the recipe no operating point
        - `pairs`: `first`, `second` and `endpoints`, each with `difference` (first minus second), `interval`, `test`,
          `p_value`, `adjusted_p_value`, and `over_seeds` (`interval`, `p_value`, `degrees_of_freedom`,
          `adjusted_p_value`; None unless both recipes have two seeds); accuracies also `only_first_right` and
          `only_second_right`, images averaged over pairs of seeds

        ROC-AUC is tested by `compare_auc`, accuracy by `mcnemar`, any other metric by a bootstrap of groups with equal
        draws for all recipes.

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
    compared = [_pair(estimates[first], estimates[second], endpoints, confidence.level) for first, second in pairs]
    for endpoint in endpoints:
        answers = [pair["endpoints"][endpoint.key] for pair in compared]
        _adjust(answers)
        _adjust([answer["over_seeds"] for answer in answers if answer is not None])
    first = recipes[0].tables[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "images": len(first),
        "pneumonia": int(np.sum(first.label == PNEUMONIA)),
        "groups": len(np.unique(first.clusters())) if first.has_groups else None,
        "confidence": dataclasses.asdict(confidence),
        "correction": {"method": "Holm 1979", "comparisons": len(pairs)},
        "endpoints": {e.key: {"metric": e.metric, "at": e.at, "title": e.title} for e in endpoints},
        "recipes": {name: _summary(estimate, endpoints, confidence.level) for name, estimate in estimates.items()},
        "pairs": compared,
    }


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


def _summary(estimate: _Estimate, endpoints: Sequence[Endpoint], level: float) -> dict[str, Any]:
    recipe = estimate.recipe
    summaries: dict[str, Any] = {}
    for endpoint in endpoints:
        values = estimate.values.get(endpoint.key)
        if values is None or np.isnan(values).any():
            summaries[endpoint.key] = None
            continue
        if endpoint.metric == "roc_auc":
            interval = mean_auc_interval(recipe.tables, level)
        else:
            drawn = estimate.resampled[endpoint.key].mean(axis=0)
            interval = percentile_interval(drawn, float(values.mean()), level, _bootstrap_name(recipe))
        summaries[endpoint.key] = {
            "values": values.tolist(),
            **dataclasses.asdict(spread(values.tolist())),
            "interval": _as_json(interval),
        }
    thresholds = None if recipe.thresholds is None else list(recipe.thresholds)
    return {"seeds": len(recipe.tables), "thresholds": thresholds, "endpoints": summaries}


def _pair(first: _Estimate, second: _Estimate, endpoints: Sequence[Endpoint], level: float) -> dict[str, Any]:
    answers = {}
    for endpoint in endpoints:
        known = endpoint.key in first.values and endpoint.key in second.values
        answers[endpoint.key] = _answer(first, second, endpoint, level) if known else None
    return {"first": first.recipe.name, "second": second.recipe.name, "endpoints": answers}


def _answer(first: _Estimate, second: _Estimate, endpoint: Endpoint, level: float) -> dict[str, Any] | None:
    """Return what is to be said of one endpoint of a pair; None where a seed has no value."""
    key = endpoint.key
    values = first.values[key], second.values[key]
    if np.isnan(np.concatenate(values)).any():
        return None
    drawn = first.resampled[key].mean(axis=0) - second.resampled[key].mean(axis=0)
    name, difference = _bootstrap_name(first.recipe), float(values[0].mean() - values[1].mean())
    answer: dict[str, Any] = {
        "difference": difference,
        "interval": _as_json(percentile_interval(drawn, difference, level, name)),
        "test": name,
        "p_value": bootstrap_p_value(drawn),
    }
    if endpoint.metric == "accuracy":
        test = _mcnemar(first.recipe, second.recipe, endpoint)
        answer |= {"test": test.method, "p_value": test.p_value}
        answer |= {"only_first_right": test.only_first_right, "only_second_right": test.only_second_right}
    if endpoint.metric == "roc_auc":
        label, scores, clusters = _scores(first.recipe, second.recipe)
        compared = compare_auc(label, *scores, clusters, level)
        answer |= {"test": "DeLong" if clusters is None else "Obuchowski", "interval": None, "p_value": None}
        if compared is not None:
            answer |= {"interval": _as_json(compared.interval), "p_value": compared.p_value}
    covariance = _covariance(first, second, endpoint)
    over_seeds = None if covariance is None else difference_over_seeds(*values, covariance, level)
    return answer | {"over_seeds": None if over_seeds is None else _bounded(dataclasses.asdict(over_seeds), endpoint)}


def _bounded(answer: dict[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    """Return an answer over seeds whose interval ends where the difference can: Student's knows no bounds."""
    most = {"log_loss": np.inf, "matthews_correlation": 2.0}.get(endpoint.metric, 1.0)
    interval = answer["interval"]
    interval |= {"low": max(interval["low"], -most), "high": min(interval["high"], most)}
    return answer


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


def _as_json(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else dataclasses.asdict(interval)


def _adjust(answers: Sequence[dict[str, Any] | None]) -> None:
    """Add `adjusted_p_value` to answers of one kind; None to those that have no p-value."""
    asked = [answer for answer in answers if answer is not None and answer["p_value"] is not None]
    for answer in answers:
        if answer is not None:
            answer["adjusted_p_value"] = None
    for answer, adjusted in zip(asked, holm([answer["p_value"] for answer in asked]), strict=True):
        answer["adjusted_p_value"] = adjusted
