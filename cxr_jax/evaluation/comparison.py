"""Is one recipe better than another? Every metric of several recipes on the same images, and every pair of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.comparison_record import (
    FREE,
    HALF,
    RESOLUTION,
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
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import percentile_interval
from cxr_jax.evaluation.paired import (
    McNemar,
    bootstrap_p_value,
    compare_auc,
    difference_over_seeds,
    holm,
    mcnemar,
    smallest_bootstrap_p_value,
)
from cxr_jax.evaluation.recipe_draws import Estimate, Recipe, covariance, estimate, share_interval
from cxr_jax.evaluation.seeds import interval_over_seeds, mean_auc_interval, same_images, spread
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import PNEUMONIA

Compared = TypeVar("Compared", bound=Recipe)

_MOST_DRAWS = 100_000
"""Draws of a bootstrap test at most; beyond about 50 pairs its smallest corrected p-value lies above `RESOLUTION`."""


def compare(
    recipes: Sequence[Recipe], confidence: Confidence | None = None, *, reference: str | None = None
) -> Comparison:
    """Compares recipes on the same images: every pair, or each with the one called `reference`.

    Metrics are means over the seeds of a recipe, never metrics of an ensemble of them. `as_trained` intervals and the
    tests beside `p_value` stand for other patients and for these very networks; `interval` of a recipe and `over_seeds`
    of a pair stand for other patients and for networks trained again with other seeds. At the operating point the
    thresholds are taken as given; at the rule they are set anew in every draw of validation and test groups.

    ROC-AUC is tested by `compare_auc`, accuracy at a given threshold by `mcnemar`, any other metric by a bootstrap of
    groups with equal draws for all recipes. P-values are adjusted by Holm's method, and where it costs little there are
    draws enough for adjusted ones below `RESOLUTION`.

    Raises:
        UserError: two recipes have one name, `reference` is none of them, or tables are over different images.
    """
    confidence = confidence or Confidence()
    recipes = aligned(recipes)
    pairs = pairs_of(recipes, reference)
    (comparison,) = adjusted([compare_aligned(recipes, pairs, endpoints_of(recipes), confidence)])
    return comparison


def compare_aligned(
    recipes: Sequence[Recipe], pairs: Sequence[tuple[str, str]], endpoints: Sequence[Endpoint], confidence: Confidence
) -> Comparison:
    """Returns the comparison of recipes that `aligned` gave, with p-values that are not adjusted yet."""
    names = [recipe.name for recipe in recipes]
    # The smallest p-value of n draws is 2 / (n + 1), and Holm multiplies it by the number of pairs.
    draws = max(confidence.resamples, min(round(2 * len(pairs) / RESOLUTION), _MOST_DRAWS))
    estimates = dict(zip(names, estimate(recipes, endpoints, confidence, draws=draws), strict=True))
    answers = {
        endpoint.key: [
            _answer(estimates[first], estimates[second], endpoint, confidence.level) for first, second in pairs
        ]
        for endpoint in endpoints
    }
    first = recipes[0].tables[0]
    return Comparison(
        images=len(first),
        pneumonia=int(np.sum(first.label == PNEUMONIA)) if isinstance(first, Predictions) else None,
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


def aligned(recipes: Sequence[Compared]) -> list[Compared]:
    """Returns the recipes with all rows in one order and all groups equal."""
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two recipes are called {twice}: give them different names")
    flat = [(recipe.name, table) for recipe in recipes for table in recipe.tables]
    tables = iter(same_images([table for _, table in flat], [name for name, _ in flat]))
    return [dataclasses.replace(recipe, tables=tuple(next(tables) for _ in recipe.tables)) for recipe in recipes]


def pairs_of(recipes: Sequence[Recipe], reference: str | None) -> list[tuple[str, str]]:
    """Returns the names of every two recipes, or of each with the reference; UserError if that is none of them."""
    names = [recipe.name for recipe in recipes]
    if reference is None:
        return list(combinations(names, 2))
    if reference not in names:
        raise UserError(f"the reference {reference} is none of the recipes: {', '.join(names)}")
    return [(name, reference) for name in names if name != reference]


def endpoints_of(recipes: Sequence[Recipe]) -> tuple[Endpoint, ...]:
    """Returns what recipes of two classes, or of one class against the rest, are compared by."""
    thresholds = [threshold for recipe in recipes for threshold in recipe.thresholds or ()]
    endpoints = FREE + endpoints_at("half" if recipes[0].called is None else "call")
    if any(threshold != HALF for threshold in thresholds):
        endpoints += endpoints_at("operating_point")
        if any(recipe.rule is not None for recipe in recipes):
            endpoints += endpoints_at("rule")
    return endpoints


def _summary(estimate: Estimate, endpoints: Sequence[Endpoint], level: float) -> RecipeSummary:
    recipe = estimate.recipe
    return RecipeSummary(
        seeds=len(recipe.tables),
        thresholds=recipe.thresholds,
        endpoints={endpoint.key: _endpoint_summary(estimate, endpoint, level) for endpoint in endpoints},
    )


def _endpoint_summary(estimate: Estimate, endpoint: Endpoint, level: float) -> EndpointSummary | None:
    """Returns one endpoint of a recipe; None where a seed has no value."""
    recipe, values = estimate.recipe, estimate.values.get(endpoint.key)
    if values is None or np.isnan(values).any():
        return None
    found = spread(values.tolist())
    if endpoint.metric == "roc_auc":
        as_trained = mean_auc_interval(recipe.tables, level)
    else:
        as_trained = share_interval(recipe, endpoint, level)
        if as_trained is None:
            as_trained = percentile_interval(estimate.means[endpoint.key], found.mean, level, _bootstrap_name(recipe))
    interval = interval_over_seeds(values, as_trained, level, recipe.metrics[endpoint.metric].bounds)
    return EndpointSummary(tuple(values.tolist()), found.mean, found.deviation, interval, as_trained)


def _answer(first: Estimate, second: Estimate, endpoint: Endpoint, level: float) -> Answer | None:
    """Returns what is to be said of one endpoint of a pair, not yet adjusted; None where a seed has no value."""
    key = endpoint.key
    if key not in first.values or key not in second.values:
        return None
    values = first.values[key], second.values[key]
    if np.isnan(np.concatenate(values)).any():
        return None
    difference = float(values[0].mean() - values[1].mean())
    over_seeds = _over_seeds(first, second, endpoint, level)
    if endpoint.metric == "roc_auc":
        clusters = first.recipe.clusters
        label = first.recipe.tables[0].label
        compared = compare_auc(label, first.recipe.scores, second.recipe.scores, clusters, level)
        name = "DeLong" if clusters is None else "Obuchowski"
        known = (None, None) if compared is None else (compared.interval, compared.p_value)
        return Answer(difference, known[0], name, known[1], over_seeds)
    drawn, name = first.means[key] - second.means[key], _bootstrap_name(first.recipe)
    interval = percentile_interval(drawn, difference, level, name)
    shares = first.recipe.metrics[endpoint.metric].proportion
    if endpoint.metric == "accuracy" and shares is not None and endpoint.at != "rule":
        test = _mcnemar(first.recipe, second.recipe, endpoint)
        right = test.only_first_right, test.only_second_right
        return Answer(difference, interval, test.method, test.p_value, over_seeds, *right)
    p_value = bootstrap_p_value(drawn)
    smallest = None if p_value is None else smallest_bootstrap_p_value(drawn)
    return Answer(difference, interval, name, p_value, over_seeds, smallest_p_value=smallest)


def _over_seeds(
    first: Estimate, second: Estimate, endpoint: Endpoint, level: float
) -> AdjustedDifferenceOverSeeds | None:
    """Returns the difference over seeds; its interval ends where the difference can, as Student's knows no bounds."""
    known = covariance([first, second], endpoint)
    if known is None:
        return None
    found = difference_over_seeds(first.values[endpoint.key], second.values[endpoint.key], known, level)
    if found is None:
        return None
    low, high = first.recipe.metrics[endpoint.metric].bounds
    most = high - low
    bounded = dataclasses.replace(
        found.interval, low=max(found.interval.low, -most), high=min(found.interval.high, most)
    )
    return AdjustedDifferenceOverSeeds(bounded, found.p_value, found.degrees_of_freedom)


def _mcnemar(first: Recipe, second: Recipe, endpoint: Endpoint) -> McNemar:
    ones = np.ones((1, len(first.tables[0])))
    right = [
        np.stack([recipe.metrics[endpoint.metric].proportion(cases)[0] for cases in recipe.cases(endpoint.at, ones)])
        for recipe in (first, second)
    ]
    return mcnemar(*right, first.clusters)


def _bootstrap_name(recipe: Recipe) -> str:
    return "group bootstrap" if recipe.tables[0].has_groups else "bootstrap"


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Returns comparisons of the same recipes with the p-values of each endpoint adjusted over all pairs of all."""
    keys = dict.fromkeys(key for comparison in comparisons for key in comparison.endpoints)
    answers = {
        key: iter(_adjusted([pair.endpoints[key] for comparison in comparisons for pair in comparison.pairs]))
        for key in keys
    }
    count = sum(len(comparison.pairs) for comparison in comparisons)
    return [
        dataclasses.replace(
            comparison,
            correction=dataclasses.replace(comparison.correction, comparisons=count),
            pairs=tuple(
                dataclasses.replace(pair, endpoints={key: next(answers[key]) for key in pair.endpoints})
                for pair in comparison.pairs
            ),
        )
        for comparison in comparisons
    ]


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
