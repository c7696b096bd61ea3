"""What does a recipe's augmentation cost of its training step? Run by hand, as `test_speed.py` is.

Steps of configs/mobilenetv2_best.toml, with its augmentation and without, take turns on random images. The network, its
image size and the batch are those of the options.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark")

import jax

from cxr_jax.bench.workload import DISTINCT_BATCHES, noise_images
from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import AugmentationConfig, Config, DataConfig, ModelConfig, TrainingConfig
from cxr_jax.config.shipped import find_config
from cxr_jax.devices import replicate
from cxr_jax.process import keep_freed_memory
from cxr_jax.training.feed import HostFeed
from cxr_jax.training.network import build_network
from cxr_jax.training.plan import plan_run
from cxr_jax.training.run import compile_train_step
from cxr_jax.training.state import new_state
from cxr_jax.training.step import moment_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

AT_MOST = 1.1
"""Times the step without augmentation."""

ROUNDS = 6


def test_augmentation_takes_little_of_a_step(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> None:
    """Time steps with augmentation, and before each a step without."""
    keep_freed_memory()  # as the commands do
    option = request.config.getoption
    augmentation = load_config(find_config("mobilenetv2_best")).augmentation
    plain, augmented = (
        _stepper(option("--model"), option("--image-size"), option("--batch-size"), changes)
        for changes in (AugmentationConfig(), augmentation)
    )
    without: list[float] = []

    def take_turns() -> None:
        began = time.perf_counter()
        plain()
        without.append(time.perf_counter() - began)

    benchmark.pedantic(augmented, setup=take_turns, rounds=ROUNDS, warmup_rounds=1)
    ratios = [slow / fast for slow, fast in zip(benchmark.stats.stats.data, without[1:], strict=True)]
    times_as_long = statistics.median(ratios)
    images_per_second = option("--batch-size") / benchmark.stats.stats.median
    benchmark.extra_info |= {"images_per_second": images_per_second, "times_as_long": times_as_long}
    print(f"\n{images_per_second:.1f} images/s with augmentation, which makes a step {times_as_long:.3f} times as long")
    if not option("--no-bounds"):
        assert times_as_long <= AT_MOST


def _stepper(model: str, size: int, batch_size: int, augmentation: AugmentationConfig) -> Callable[[], None]:
    """Returns a function that takes one training step, and waits for it."""
    noise = noise_images(DISTINCT_BATCHES * batch_size, size)
    config = Config(
        data=DataConfig(image_size=size),
        model=ModelConfig(name=model),
        augmentation=augmentation,
        training=TrainingConfig(batch_size=batch_size, evaluation_batch_size=batch_size),
    )
    network = build_network(config.model, seed=0)
    plan = plan_run(config, network, noise, noise)
    (phase,) = plan.phases
    state = new_state(network.params, network.batch_stats, phase.trainable, phase.optimizer(phase.schedule))
    feed = HostFeed(noise)
    run = compile_train_step(plan, network, phase, state, feed)
    state = replicate(state, plan.devices)
    batches = itertools.cycle([*feed.batches(batch_size=batch_size, seed=0, epoch=0)])
    moment = moment_of(0, learning_rate=float(phase.schedule(0)))

    def step() -> None:
        nonlocal state
        state, metrics = run(state, run.place(next(batches)), moment)
        jax.block_until_ready((state, metrics))

    step()
    return step
