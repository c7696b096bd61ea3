"""What does it save to compute the features of a frozen backbone once? Run by hand, as `test_speed.py` is.

The head is trained twice on the same random images: on the images themselves, through the frozen backbone, and on
features that were pooled before. An epoch on features must cost less than a tenth.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark")

from cxr_jax.config.schema import AugmentationConfig, ModelConfig, OptimizerConfig, PhaseConfig
from cxr_jax.data.batches import Batch
from cxr_jax.training.network import build_network
from cxr_jax.training.optimizer import make_optimizer, partition
from cxr_jax.training.parallel import compile_train_step
from cxr_jax.training.sharding import choose_devices, replicate
from cxr_jax.training.state import new_state
from cxr_jax.training.steps import StepRules

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

EPOCH_STEPS = 20
"""Steps that stand for an epoch: the ratio does not depend on how many there are."""

PLAIN_STEPS = 5


def test_an_epoch_on_features_costs_less_than_a_tenth(
    benchmark: BenchmarkFixture, request: pytest.FixtureRequest
) -> None:
    """Time an epoch on features, and beside it steps on images."""
    option = request.config.getoption
    on_images = _stepper(option("--model"), option("--image-size"), option("--batch-size"), features=False)
    on_features = _stepper(option("--model"), option("--image-size"), option("--batch-size"), features=True)
    on_images(1)
    benchmark.pedantic(on_features, (EPOCH_STEPS,), rounds=10, warmup_rounds=1)
    seconds_on_features = statistics.median(benchmark.stats.stats.data) / EPOCH_STEPS
    began = time.perf_counter()
    on_images(PLAIN_STEPS)
    seconds_on_images = (time.perf_counter() - began) / PLAIN_STEPS
    share = seconds_on_features / seconds_on_images
    benchmark.extra_info |= {"seconds_a_step_on_images": seconds_on_images, "share": share}
    print(f"\na step on features takes {share:.2%} of one on images ({seconds_on_images:.3f} s)")
    if not option("--no-bounds"):
        assert share < 0.1


def _stepper(model: str, size: int, batch_size: int, *, features: bool) -> Callable[[int], None]:
    """A function that trains the head for so many steps."""
    network = build_network(ModelConfig(name=model), seed=0)
    trainable, frozen = partition(network.params, PhaseConfig(trainable=("classifier",), batch_norm="frozen"))
    optimizer = make_optimizer(OptimizerConfig(), lambda step: 0.01, trainable)
    rules = StepRules(
        graphdef=network.graphdef,
        optimizer=optimizer,
        mean=network.mean,
        std=network.std,
        augmentation=AugmentationConfig(),
        class_weights=(1.0, 1.0),
        label_smoothing=0.0,
        batch_statistics=False,
        seed=0,
        frozen_backbone=True,
    )
    random = np.random.default_rng(0)
    inputs = random.integers(0, 256, (batch_size, size, size), np.uint8)
    if features:
        channels = network.params["classifier.kernel"].shape[0]
        rules = dataclasses.replace(rules, feature_channels=channels)
        inputs = random.random((batch_size, channels), np.float32)
    batch = Batch(inputs, random.integers(0, 2, batch_size).astype(np.int32), np.arange(batch_size, dtype=np.int32))
    devices = choose_devices(0)
    state = replicate(new_state(trainable, frozen, network.batch_stats, optimizer, 0), devices)
    step = compile_train_step(rules, state, size, batch_size, devices, "jit")

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, batch, 0)
        float(metrics.loss)

    return run
