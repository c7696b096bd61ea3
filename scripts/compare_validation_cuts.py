#!/usr/bin/env python
"""Compare the ways to cut a validation split from train: which of them promises what no other radiographs would keep?

For every cut, a logistic regression is fitted to the pooled features that ImageNet weights give of the images that stay
in train, and judged on those that were cut from it. The sharpness of every split is printed beside it; of the test
split no label is read and nothing is predicted. Both tables are CSV. Two minutes on two CPU cores.

    cxr-jax prepare PATH/chest_xray
    .venv/bin/python scripts/compare_validation_cuts.py --out results/validation_cuts
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from check_frozen_features import FeatureOptions, feature_function
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_jax.config.command_line import parse
from cxr_jax.config.schema import DataConfig
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.quality.table import quality_table
from cxr_jax.data.split_loading import load_split, rows_of_split
from cxr_jax.errors import run_script
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.metrics import metric_value, specificity_at_sensitivity
from cxr_jax.runs.files import csv_text, write_text
from cxr_jax.vocabulary import NORMAL, PNEUMONIA

FRACTION = 0.2
TARGET_SENSITIVITY = 0.975
STRENGTH = 0.01
"""C of the regression, which cross-validation on train chooses in check_frozen_features.py."""

JUDGED = ("ROC-AUC", "sensitivity", "specificity", "specificity at 97.5 % sensitivity")
"""Columns of what is judged; the first three calls are at threshold 0.5."""

PERCENTILES = (5, 25, 50, 75, 95)

SEEDS = {"grouped": (0, 1, 2), "numbered": (0,), "least_sharp": (0, 1, 2)}
"""Seeds that every cut is made with; that by numbers leaves nothing to chance."""


@dataclasses.dataclass(frozen=True)
class Options(FeatureOptions):
    """What to compare."""

    out: str = ""  # folder for cuts.csv and sharpness.csv; nothing is written without it


def main(arguments: Sequence[str]) -> int:
    """Prints a table of the cuts and one of sharpness, and writes both with `--out`."""
    options = parse(Options, arguments, prog="compare_validation_cuts.py", description=__doc__)
    prepared = PreparedData.open(options.dataset)
    official = DataConfig(image_size=options.image_size, validation="official")
    train = load_split(prepared, official, "train")
    features = dict(zip(train.ids.tolist(), feature_function(options)(train.images), strict=True))
    labels = dict(zip(train.ids.tolist(), train.labels.tolist(), strict=True))
    cuts = [["cut", "seed", "normal", "pneumonia", *JUDGED]]
    for validation, seeds in SEEDS.items():
        for seed in seeds:
            config = dataclasses.replace(official, validation=validation, validation_fraction=FRACTION, split_seed=seed)
            kept, cut = (rows_of_split(prepared, config, split).tolist() for split in ("train", "val"))
            cases = judged(kept, cut, features, labels)
            values = [metric_value(name, cases) for name in ("roc_auc", "sensitivity", "specificity")]
            values.append(float(specificity_at_sensitivity(cases, TARGET_SENSITIVITY)[0]))
            normals = int((cases.label == NORMAL).sum())
            cuts.append([validation, seed, normals, len(cut) - normals, *(f"{value:.4f}" for value in values)])

    measured = quality_table(prepared).columns["sharpness"]
    test = rows_of_split(prepared, official, "test")
    normal, ill = (train.ids[train.labels == label] for label in (NORMAL, PNEUMONIA))
    sharpness = [["images", *(f"percentile {share}" for share in PERCENTILES)]]
    for name, rows in {"train NORMAL": normal, "train PNEUMONIA": ill, "test": test}.items():
        sharpness.append([name, *(f"{value:.4f}" for value in np.percentile(measured[rows], PERCENTILES))])
    for name, table in {"cuts": cuts, "sharpness": sharpness}.items():
        text = csv_text(table)
        print(text, end="")
        if options.out:
            write_text(Path(options.out) / f"{name}.csv", text)
    return 0


def judged(kept: list[int], cut: list[int], features: dict[int, np.ndarray], labels: dict[int, int]) -> Cases:
    """Returns the rows `cut`, judged by a logistic regression that was fitted to the rows `kept`."""
    regression = make_pipeline(
        StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000, class_weight="balanced")
    ).fit([features[row] for row in kept], [labels[row] for row in kept])
    probability = regression.predict_proba([features[row] for row in cut])[:, PNEUMONIA]
    return Cases.unweighted(np.array([labels[row] for row in cut]), probability, 0.5)


if __name__ == "__main__":
    run_script(main)
