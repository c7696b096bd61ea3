#!/usr/bin/env python
"""Check ImageNet weights on the real radiographs: frozen features and a logistic regression must reach an AUC.

The pooled features of every radiograph are computed once with the weights as they are, a logistic regression is fitted
to those of the whole official training split, and judged on the official test split. Nothing is chosen on the test
split: the strength of the regularisation is chosen among decades by cross-validation on the training split, whose folds
keep the images of a group together. Two minutes on two CPU cores.

    cxr-jax prepare PATH/chest_xray
    .venv/bin/python scripts/check_frozen_features.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_jax.config.command_line import parse
from cxr_jax.config.schema import DataConfig, ModelConfig
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import run_script
from cxr_jax.images.batches import padded_batches
from cxr_jax.models.pretrained import find_weights, load_weights
from cxr_jax.models.registry import build_model, find_architecture
from cxr_jax.models.state import merge_model, split_model
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.vocabulary import CLASS_NAMES

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class FeatureOptions:
    """Of which radiographs features are computed, and by which network."""

    dataset: str = DataConfig.dataset  # name or path of prepared data
    model: str = ModelConfig.name
    weights: str = "mobilenetv2_100.imagenet.safetensors"  # a path, or a file in CXR_WEIGHTS_DIR
    image_size: int = 224
    batch_size: int = 64


@dataclass(frozen=True)
class Options(FeatureOptions):
    """What to check."""

    minimum_auc: float = 0.95  # the check fails below


def feature_function(options: FeatureOptions) -> Callable[[np.ndarray], np.ndarray]:
    """A function of images [N, S, S] uint8 that gives features [N, C] float32, by the weights of `options`."""
    architecture = find_architecture(options.model)
    graphdef, *arrays = split_model(build_model(options.model, classes=len(CLASS_NAMES)))
    loaded = load_weights(find_weights(options.weights, options.model), options.model, *arrays)
    mean, std = loaded.image_statistics() or (architecture.mean, architecture.std)

    @jax.jit
    def pooled(params: dict, batch_stats: dict, batch: jax.Array) -> jax.Array:
        return merge_model(graphdef, params, batch_stats).pooled(normalise(batch, mean, std))

    def features(images: np.ndarray) -> np.ndarray:
        found = []
        for batch, count in padded_batches(images, options.batch_size):
            found.append(np.asarray(pooled(loaded.params, loaded.batch_stats, batch))[:count])
            print(f"\r{sum(map(len, found))} of {len(images)} radiographs", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return np.concatenate(found)

    return features


def main(arguments: Sequence[str]) -> int:
    """Print the AUC on the test split; 0 if it is high enough."""
    options = parse(Options, arguments, prog="check_frozen_features.py", description=__doc__)
    prepared = PreparedData.open(options.dataset)
    # with the official validation split nothing is cut from the training split
    config = DataConfig(image_size=options.image_size, validation="official")
    train, test = (load_split(prepared, config, split) for split in ("train", "test"))
    regression = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": STRENGTHS},
        scoring="roc_auc",
        cv=GroupKFold(5),
    )
    features = feature_function(options)
    regression.fit(features(train.images), train.labels, groups=train.groups)
    scores = regression.decision_function(features(test.images))
    auc = roc_auc_score(test.labels, scores)
    print(
        f"C = {regression.best_params_['logisticregression__C']:g} of {', '.join(f'{value:g}' for value in STRENGTHS)}"
    )
    print(f"{options.weights}: AUC {auc:.4f} on {len(test.labels)} test radiographs, fitted to {len(train.labels)}")
    return 0 if auc >= options.minimum_auc else 1


if __name__ == "__main__":
    run_script(main)
