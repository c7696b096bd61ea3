"""A small network with random weights, as a run would be restored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cxr_jax.inference.description import NetworkDescription
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import split_model
from cxr_jax.vocabulary import CLASS_NAMES


@pytest.fixture(scope="session")
def trained() -> TrainedModel:
    """A network for images of 32 x 32 pixels, with a threshold of 0.4 by rule `youden`."""
    description = NetworkDescription(
        architecture="mobilenetv2_tiny",
        classes=CLASS_NAMES,
        image_size=32,
        resize="squash",
        interpolation="area",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        weights="",
        weights_sha256="",
        parameters=0,
    )
    graphdef, params, batch_stats = split_model(build_model("mobilenetv2_tiny", classes=2, seed=3))
    # A classifier that shouts, so that probabilities differ between images.
    params["classifier.kernel"] = 20 * params["classifier.kernel"]
    return TrainedModel(description, graphdef, params, batch_stats, step=7, threshold=0.4, threshold_rule="youden")


@pytest.fixture(scope="session")
def unjudged(trained: TrainedModel) -> TrainedModel:
    """The same network before its run was evaluated."""
    return replace(trained, threshold=None, threshold_rule=None)
