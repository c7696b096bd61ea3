#!/usr/bin/env python
r"""Measures how often 95 % intervals hold the truth, where it is known because the calls and scores are drawn.

The groups are those of a predictions table, with their real sizes; what is called rightly, and the scores, are drawn
anew each time. `correlation` is how alike the images of one group are: 0 not at all, 1 copies.

    .venv/bin/python scripts/measure_coverage.py results/moderate_crops/seed0/predictions/test.csv \
        results/coverage/coverage.csv
    .venv/bin/python scripts/write_pages.py     # brings docs/intervals.md up to it
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from scipy.stats import norm

from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.intervals import (
    Interval,
    auc_interval,
    bootstrap_counts,
    percentile_interval,
    wilson_interval_of_groups,
)
from cxr_jax.runs.files import csv_text, write_text
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.vocabulary import CLASS_NAMES, PNEUMONIA

SHARES = (0.995, 0.99, 0.975, 0.9, 0.78)
AREAS = (0.99, 0.98, 0.95, 0.9)
CORRELATIONS = (0.0, 0.2, 0.5)
RESAMPLES = 500

SAMPLES = 1000
"""Of every case of a share; of every case of ROC-AUC a quarter, as it takes longer."""


@dataclass(frozen=True)
class Coverage:
    """How often two intervals of one measure held the truth, in per cent of `samples`.

    Attributes:
        measure: `share` of right calls, or `roc_auc`.
        images: whose groups there are: those of one class, or of both.
        truth: the value that an interval should hold.
        correlation: of two images of one group.
        shown: by the interval that a report shows first, Wilson's by groups or Obuchowski's on the logit.
        bootstrap: by the percentiles of a bootstrap of groups; where it tells no interval it does not hold the truth.
        samples: how often both were tried.
    """

    measure: str
    images: str
    truth: float
    correlation: float
    shown: float
    bootstrap: float
    samples: int


@dataclass(frozen=True)
class Case:
    """One row of the table: what is drawn, over which groups, and how often."""

    measure: str
    images: str
    truth: float
    correlation: float
    samples: int
    label: np.ndarray  # int [N], 1 for PNEUMONIA
    clusters: np.ndarray  # int [N], 0 to the number of groups
    seed: tuple[int, int]

    def covered(self) -> Coverage:
        """Returns how often the intervals held the truth."""
        random = np.random.default_rng(self.seed)
        held = (self._share if self.measure == "share" else self._area)(random)
        shown, bootstrap = (round(100 * count / self.samples, 1) for count in held)
        return Coverage(self.measure, self.images, self.truth, self.correlation, shown, bootstrap, self.samples)

    def _share(self, random: np.random.Generator) -> tuple[int, int]:
        """Returns counts for a share of right calls; the images of a group are right with a chance of its own."""
        sizes = np.bincount(self.clusters)
        # the same draws serve all samples: they know nothing of who is called rightly
        counts = bootstrap_counts(len(sizes), RESAMPLES, random)
        drawn = counts @ sizes
        shown = bootstrap = 0
        for _ in range(self.samples):
            chance: float | np.ndarray = self.truth
            if self.correlation > 0:
                strength = 1 / self.correlation - 1
                chance = random.beta(self.truth * strength, (1 - self.truth) * strength, len(sizes))[self.clusters]
            right = (random.random(len(self.clusters)) < chance).astype(float)
            shown += _holds(wilson_interval_of_groups(right, self.clusters), self.truth)
            values = counts @ np.bincount(self.clusters, weights=right) / drawn
            bootstrap += _holds(percentile_interval(values, float(right.mean())), self.truth)
        return shown, bootstrap

    def _area(self, random: np.random.Generator) -> tuple[int, int]:
        """Returns counts for the ROC-AUC of normal scores, of which the images of a group share a part."""
        groups, ill = int(self.clusters.max()) + 1, self.label == 1
        weights = bootstrap_counts(groups, RESAMPLES, random)[:, self.clusters]
        pairs = weights[:, ill].sum(axis=1) * weights[:, ~ill].sum(axis=1)
        shown = bootstrap = 0
        for _ in range(self.samples):
            shared = random.normal(size=groups)[self.clusters]
            noise = np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * random.normal(size=len(ill))
            score = norm.cdf(noise + np.sqrt(2) * norm.ppf(self.truth) * self.label)
            shown += _holds(auc_interval(self.label, score, self.clusters), self.truth)
            above = (score[ill][:, None] > score[~ill]).astype(np.float64)
            values = np.sum((weights[:, ill] @ above) * weights[:, ~ill], axis=1) / pairs
            bootstrap += _holds(percentile_interval(values, float(above.mean())), self.truth)
        return shown, bootstrap


def _holds(interval: Interval | None, truth: float) -> bool:
    return interval is not None and interval.low <= truth <= interval.high


def measure(table: Path, samples: int, *, seed: int = 0, processes: int = 1) -> list[Coverage]:
    """Returns the coverage over the groups of a predictions table; UserError if it cannot be read."""
    predictions = read_predictions(table)
    clusters, label = predictions.clusters(), (predictions.label == PNEUMONIA).astype(int)
    parts = [("share", name, SHARES, samples, label == index) for index, name in enumerate(CLASS_NAMES)]
    parts.append(("roc_auc", "both classes", AREAS, max(samples // 4, 1), np.ones(len(label), bool)))
    cases = []
    for kind, images, truths, count, rows in parts:
        own = np.unique(clusters[rows], return_inverse=True)[1]
        for truth, correlation in itertools.product(truths, CORRELATIONS):
            cases.append(Case(kind, images, truth, correlation, count, label[rows], own, (seed, len(cases))))
    if processes == 1:
        return [case.covered() for case in cases]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(Case.covered, cases))


def main(arguments: Sequence[str]) -> None:
    """Measures over the table that is named first, and writes the CSV that is named second."""
    if len(arguments) != 2:
        raise UserError("name both tables: measure_coverage.py TABLE.csv COVERAGE.csv")
    found = measure(Path(arguments[0]), SAMPLES, processes=os.cpu_count() or 1)
    rows = [[field.name for field in fields(Coverage)], *(astuple(entry) for entry in found)]
    write_text(arguments[1], csv_text(rows))


if __name__ == "__main__":
    run_script(main)
