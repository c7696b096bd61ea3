"""Several runs of one recipe that differ in their seed only: mean, spread, and the interval of the mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from cxr_jax.errors import UserError
from cxr_jax.evaluation.confidence import LEVEL
from cxr_jax.evaluation.intervals import Interval, area_interval, obuchowski_covariance
from cxr_jax.runs.clustered import Clustered, Rows
from cxr_jax.runs.predictions import Predictions

# Below this a variance is rounding and says nothing.
_NO_VARIANCE = 1e-18

_Map = Callable[[np.ndarray], np.ndarray]

# Images that an error names before it counts the others.
_NAMED = 3


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, and their standard deviation (n - 1 in the denominator; None for a single seed)."""

    mean: float
    deviation: float | None


def spread(values: Sequence[float]) -> Spread:
    """Returns mean and standard deviation of at least one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation)


def same_images(tables: Sequence[Rows], names: Sequence[str]) -> list[Rows]:
    """Returns the tables with their rows in the order of the first, all with its groups.

    Where the first table states no groups, those of the first table that does are taken for all.

    Raises:
        UserError: a table is over other images than the first, or labels or groups one differently; tables and images
            are named.
    """
    first = tables[0]
    aligned = [first]
    for table, name in zip(tables[1:], names[1:], strict=True):
        row_of = {file: row for row, file in enumerate(table.file)}
        missing = [file for file in first.file if file not in row_of]
        further = sorted(set(row_of) - set(first.file))
        if missing or further:
            lacks = [f"{who} lacks {_some(files)}" for who, files in ((name, missing), (names[0], further)) if files]
            raise UserError(
                f"{names[0]} and {name} are not over the same images: {', and '.join(lacks)}; "
                "compare tables over the same"
            )
        table = table.select(np.array([row_of[file] for file in first.file]))
        wrong = [first.file[row] for row in np.flatnonzero(_labelled_otherwise(table.label, first.label))]
        if wrong:
            raise UserError(f"{names[0]} and {name} give different labels to {_some(wrong)}: one must be wrong")
        aligned.append(table)
    return _with_common_groups(aligned, names)


def _labelled_otherwise(label: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns a mask [N] of the images whose labels, [N] or [N, K], differ; what both do not know is equal."""
    differ = (label != other) & ~(np.isnan(label) & np.isnan(other))
    return differ.reshape(len(label), -1).any(axis=1)


def _some(files: Sequence[str]) -> str:
    """Returns the first names of a list, and how many there are if they are more."""
    if len(files) <= _NAMED:
        return ", ".join(files)
    return f"{', '.join(files[:_NAMED])} and {len(files) - _NAMED:,} more"


def _with_common_groups(tables: Sequence[Rows], names: Sequence[str]) -> list[Rows]:
    """Returns tables over the same rows with the groups of the first that states them; UserError if two disagree.

    Where a table joins groups that are whole in another one, as groups with identical files are, it is taken.
    """
    grouped = [(table, name) for table, name in zip(tables, names, strict=True) if table.has_groups]
    if not grouped:
        return list(tables)
    first, first_name = grouped[0]
    for table, name in grouped[1:]:
        # Names may differ between programs; what counts is which images share one.
        parted, joined = _first_parted(first, table), _first_parted(table, first)
        if parted is not None and joined is not None:
            raise UserError(f"{first_name} and {name} put {parted} into different groups: one must be wrong")
        if joined is not None:
            first, first_name = table, name
    return [dataclasses.replace(table, group=first.group) for table in tables]


def interval_over_seeds(
    values: Sequence[float] | np.ndarray,
    as_trained: Interval | None,
    level: float = LEVEL,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval | None:
    """Returns the interval of a mean over seeds, for other patients and for networks trained again with other seeds.

    Two things could have been otherwise: the patients, about whom `as_trained` tells, and the seeds, whose mean has
    Student's interval with the half-width t * s / sqrt(n). Each end is as far from the mean as the root of the summed
    squares of the two (the method of variance estimates recovery, Zou & Donner, Statistics in Medicine 2008), on the
    scale of the angle between the bounds (arcsine of the root), of the logarithm where there is no upper one, and of
    the values themselves where there is none. Equal seeds leave
    `as_trained` as it is, and it is never shortened.

    Args:
        values: of every seed.
        as_trained: the interval of their mean for other patients and these very networks; None without one.
        level: of the interval.
        bounds: the lowest and the highest value that there are.

    Returns:
        `as_trained` for a single seed or equal ones.
    """
    values = np.asarray(values, dtype=np.float64)
    count, mean = len(values), float(np.mean(values))
    variance = float(np.var(values, ddof=1)) / count if count > 1 else 0.0
    if variance <= _NO_VARIANCE or as_trained is None:
        return as_trained
    there, back, slope = _scale(bounds, mean)
    low, centre, high = there(np.array([as_trained.low, mean, as_trained.high]))
    half = float(t.ppf((1 + level) / 2, count - 1) * np.sqrt(variance) * slope)
    ends = back(np.array([centre - np.hypot(centre - low, half), centre + np.hypot(high - centre, half)]))
    return Interval(float(ends[0]), float(ends[1]), f"{as_trained.method}, t over seeds")


def _scale(bounds: tuple[float, float], mean: float) -> tuple[_Map, _Map, float]:
    """Returns the way to the scale without bounds, the way back, and the slope of the first at `mean`."""
    low, high = bounds
    if np.isinf(low):
        return lambda x: x, lambda x: x, 1.0
    if np.isinf(high):
        return lambda x: np.log(x - low), lambda x: low + np.exp(x), 1 / (mean - low)
    width = high - low
    slope = 1 / (2 * np.sqrt((mean - low) * (high - mean)))
    return (
        lambda x: np.arcsin(np.sqrt(np.clip((x - low) / width, 0, 1))),
        lambda x: low + width * np.sin(np.clip(x, 0, np.pi / 2)) ** 2,
        slope,
    )


def _first_parted(table: Clustered, other: Clustered) -> str | None:
    """Returns the first file of a group of `table` that `other` parts, or None if it leaves every group whole."""
    group_of: dict[str, str] = {}
    for file, one, another in zip(table.file, table.group, other.group, strict=True):
        if group_of.setdefault(one, another) != another:
            return file
    return None


def mean_auc_interval(tables: Sequence[Predictions], level: float = LEVEL) -> Interval | None:
    """Returns the interval of the mean ROC-AUC of several seeds on the same images, for these very networks.

    The variance of the mean follows from the covariance of the areas (Obuchowski 1997; DeLong 1988 without groups): it
    tells how the mean would move with other patients, not with other seeds. It is symmetric on the scale of the logit,
    as that of one area. Rows are in the same order. None where there is no such interval.
    """
    first = tables[0]
    scores = np.stack([table.probability for table in tables])
    clusters = first.clusters() if first.has_groups else np.arange(len(first))
    try:
        areas, covariance = obuchowski_covariance(first.label, scores, clusters)
    except ValueError:
        return None
    method = "Obuchowski" if first.has_groups else "DeLong"
    return area_interval(float(areas.mean()), float(covariance.mean()), method, level)
