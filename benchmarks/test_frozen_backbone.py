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

from cxr_jax.bench.workload import noise_images
from cxr_jax.config.schema import Config, DataConfig, ModelConfig, PhaseConfig, TrainingConfig
from cxr_jax.devices import replicate
from cxr_jax.training.feed import HostFeed
from cxr_jax.training.network import build_network
from cxr_jax.training.plan import plan_run
from cxr_jax.training.run import compile_train_step
from cxr_jax.training.state import new_state
from cxr_jax.training.step import moment_of

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
    """Returns a function that trains the head for so many steps."""
    config = Config(
        data=DataConfig(image_size=size),
        model=ModelConfig(name=model),
        training=TrainingConfig(batch_size=batch_size, evaluation_batch_size=batch_size, precision="float32"),
        phases=(PhaseConfig(trainable=("classifier",), batch_norm="frozen"),),
    )
    network = build_network(config.model, seed=0)
    images = noise_images(batch_size, size)
    plan = plan_run(config, network, images, images)
    (phase,) = plan.phases
    if features:
        channels = network.params["classifier.kernel"].shape[0]
        pooled = np.random.default_rng(0).random((batch_size, channels), np.float32)
        images = dataclasses.replace(images, images=pooled)
    feed = HostFeed(images)
    state = new_state(network.params, network.batch_stats, phase.trainable, phase.optimizer(phase.schedule))
    step = compile_train_step(plan, network, phase, state, feed)
    state = replicate(state, plan.devices)
    (batch,) = feed.batches(batch_size=batch_size, seed=0, epoch=0)
    moment = moment_of(0, learning_rate=float(phase.schedule(0)))

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, step.place(batch), moment)
        float(metrics.loss)

    return run
