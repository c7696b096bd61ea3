"""Is one recipe better than another? Paired answers on the same images, corrected for asking several times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm

from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases, calls_of
from cxr_jax.evaluation.intervals import bootstrap_weights, obuchowski_covariance, percentile_interval
from cxr_jax.evaluation.measures import Confidence
from cxr_jax.evaluation.metrics import METRICS
from cxr_jax.evaluation.seeds import same_images, spread
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import PNEUMONIA

SCHEMA_VERSION = 1

# Resamples computed at once, so that many images do not fill the memory.
_CHUNK = 250


@dataclass(frozen=True)
class Recipe:
    """Runs of one recipe that differ in their seed: their predictions on the same images, and their thresholds."""

    name: str
    tables: tuple[Predictions, ...]
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.tables or len(self.tables) != len(self.thresholds):
            raise ValueError(f"{self.name}: {len(self.tables)} tables with {len(self.thresholds)} thresholds")


def compare(recipes: Sequence[Recipe], confidence: Confidence | None = None) -> dict[str, Any]:
    """Compare two or more recipes on the same images, every pair of them.

    Returns:
        An object for JSON: `schema_version`, `images`, `confidence`, `recipes` (mean and deviation over seeds of every
        metric, by name of the recipe) and `pairs`, each with `first`, `second` and the differences first minus second:

        - `roc_auc`: `difference` of the means over seeds, `interval`, `p_value`, `adjusted_p_value` (DeLong 1988, by
          groups Obuchowski 1997).
        - `mcnemar`: see `mcnemar`, with `adjusted_p_value`; None unless both recipes have one seed.
        - `differences`: for every metric `difference` and `interval` by bootstrap of groups, which stands for other
          patients, not for other seeds.

    P-values of one kind are adjusted together over all pairs (Holm, Scandinavian Journal of Statistics 1979).

    Raises:
        UserError: two recipes have one name, or tables are over different images; the image is named.
    """
    confidence = confidence or Confidence()
    recipes = _aligned(recipes)
    resampled = {recipe.name: _resample(recipe, confidence) for recipe in recipes}
    pairs = [_pair(one, other, resampled, confidence) for one, other in combinations(recipes, 2)]
    for test in ("roc_auc", "mcnemar"):
        asked = [pair[test] for pair in pairs if pair[test] is not None and pair[test]["p_value"] is not None]
        for answer, adjusted in zip(asked, holm([entry["p_value"] for entry in asked]), strict=True):
            answer["adjusted_p_value"] = adjusted
    return {
        "schema_version": SCHEMA_VERSION,
        "images": len(recipes[0].tables[0]),
        "confidence": dataclasses.asdict(confidence),
        "recipes": {recipe.name: _summary(recipe) for recipe in recipes},
        "pairs": pairs,
    }


def _aligned(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Return the recipes with all rows in one order."""
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two recipes are called {twice}: give them different names")
    flat = [(recipe.name, table) for recipe in recipes for table in recipe.tables]
    tables = iter(same_images([table for _, table in flat], [name for name, _ in flat]))
    return [dataclasses.replace(recipe, tables=tuple(next(tables) for _ in recipe.tables)) for recipe in recipes]


def _values(recipe: Recipe, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return every metric of every seed under weights [R, N], float64 [seeds, R]."""
    cases = [
        Cases(table.label, table.probability, threshold, weights)
        for table, threshold in zip(recipe.tables, recipe.thresholds, strict=True)
    ]
    return {name: np.stack([metric.function(case) for case in cases]) for name, metric in METRICS.items()}


def _resample(recipe: Recipe, confidence: Confidence) -> dict[str, np.ndarray]:
    """Return the mean over seeds of every metric in every resample, float64 [resamples]; equal draws for all."""
    clusters = recipe.tables[0].clusters()
    random = np.random.default_rng(confidence.seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for start in range(0, confidence.resamples, _CHUNK):
        weights = bootstrap_weights(clusters, min(_CHUNK, confidence.resamples - start), random)
        for name, values in _values(recipe, weights).items():
            parts[name].append(values.mean(axis=0))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _summary(recipe: Recipe) -> dict[str, Any]:
    """Return `seeds` and, for every metric, mean and deviation over them; None where a seed has no value."""
    values = _values(recipe, np.ones((1, len(recipe.tables[0]))))
    metrics = {
        name: None if np.isnan(entry).any() else dataclasses.asdict(spread(entry[:, 0].tolist()))
        for name, entry in values.items()
    }
    return {"seeds": len(recipe.tables), "metrics": metrics}


def _pair(
    first: Recipe, second: Recipe, resampled: Mapping[str, dict[str, np.ndarray]], confidence: Confidence
) -> dict[str, Any]:
    everything = np.ones((1, len(first.tables[0])))
    values = [_values(recipe, everything) for recipe in (first, second)]
    method = "group bootstrap" if first.tables[0].has_groups else "bootstrap"
    differences = {}
    for name in METRICS:
        difference = float(values[0][name].mean() - values[1][name].mean())
        drawn = resampled[first.name][name] - resampled[second.name][name]
        interval = percentile_interval(drawn, confidence.level, method)
        differences[name] = {
            "difference": None if np.isnan(difference) else difference,
            "interval": None if interval is None else dataclasses.asdict(interval),
        }
    single = len(first.tables) == len(second.tables) == 1
    return {
        "first": first.name,
        "second": second.name,
        "roc_auc": compare_auc(first.tables, second.tables, confidence.level),
        "mcnemar": mcnemar(first.tables[0], second.tables[0], first.thresholds[0], second.thresholds[0])
        if single
        else None,
        "differences": differences,
    }


def compare_auc(
    first: Sequence[Predictions], second: Sequence[Predictions], level: float = 0.95
) -> dict[str, Any] | None:
    """Return the difference of the mean ROC-AUCs of two recipes, its interval and its two-sided p-value.

    All tables are over the same images in the same order. DeLong 1988 for one table each and no groups; with groups
    the covariance is Obuchowski's (1997), and over seeds that of the mean. None if a class has fewer than two groups;
    interval and p-value are None where the difference has no variance.
    """
    tables = [*first, *second]
    scores = np.stack([table.probability for table in tables])
    clusters = tables[0].clusters() if tables[0].has_groups else np.arange(len(tables[0]))
    contrast = np.r_[np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))]
    try:
        auc, covariance = obuchowski_covariance(tables[0].label, scores, clusters)
    except ValueError:
        return None
    difference = float(contrast @ auc)
    variance = float(contrast @ covariance @ contrast)
    answer: dict[str, Any] = {"difference": difference, "interval": None, "p_value": None}
    if variance > 1e-18:
        error = np.sqrt(variance)
        half = norm.ppf((1 + level) / 2) * error
        method = "Obuchowski" if tables[0].has_groups else "DeLong"
        answer["interval"] = {"low": difference - half, "high": difference + half, "method": method}
        answer["p_value"] = float(2 * norm.sf(abs(difference) / error))
    return answer


def mcnemar(first: Predictions, second: Predictions, first_threshold: float, second_threshold: float) -> dict[str, Any]:
    """Return McNemar's exact test of two accuracies on the same images in the same order (Psychometrika 1947).

    `only_first_right`, `only_second_right` (images) and the two-sided `p_value`, for independent images: with several
    images a patient it is too sure of itself.
    """
    right = [
        calls_of(table.probability, threshold) == (table.label == PNEUMONIA)
        for table, threshold in ((first, first_threshold), (second, second_threshold))
    ]
    only_first, only_second = int(np.sum(right[0] & ~right[1])), int(np.sum(~right[0] & right[1]))
    differing = only_first + only_second
    return {
        "only_first_right": only_first,
        "only_second_right": only_second,
        "p_value": float(binomtest(only_first, differing).pvalue) if differing else 1.0,
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several, in their order (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()
