"""A small network with random weights, as a run would be restored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cxr_jax.inference.restore import TrainedModel


@pytest.fixture(scope="session")
def trained(tiny_trained) -> TrainedModel:
    """A network for images of 32 x 32 pixels, with a threshold of 0.4 by rule `youden`."""
    return tiny_trained(loud=True, step=7, threshold=0.4, threshold_rule="youden")


@pytest.fixture(scope="session")
def unjudged(trained: TrainedModel) -> TrainedModel:
    """The same network before its run was evaluated."""
    return replace(trained, threshold=None, threshold_rule=None)
