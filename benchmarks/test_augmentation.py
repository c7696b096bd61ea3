"""What does a recipe's augmentation cost of its training step? Run by hand, as `test_speed.py` is.

Steps with the augmentation of configs/mobilenetv2_best.toml and steps without any take turns on random images. The
network, its image size and the batch are those of the options.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import jax

from cxr_jax.bench.workload import DISTINCT_BATCHES, noise_images
from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import AugmentationConfig, Config, DataConfig, ModelConfig, TrainingConfig
from cxr_jax.config.shipped import find_config
from cxr_jax.devices import replicate
from cxr_jax.training.feed import HostFeed
from cxr_jax.training.network import build_network
from cxr_jax.training.plan import plan_run
from cxr_jax.training.run import compile_train_step
from cxr_jax.training.state import new_state
from cxr_jax.training.step import moment_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from conftest import Turns

AT_MOST = 1.1
"""Times the step without augmentation."""


def test_augmentation_takes_little_of_a_step(in_turns: Callable[..., Turns], request: pytest.FixtureRequest) -> None:
    """Time steps with augmentation, and before each a step without."""
    option = request.config.getoption
    augmentation = load_config(find_config("mobilenetv2_best")).augmentation
    plain, augmented = (
        _stepper(option("--model"), option("--image-size"), option("--batch-size"), changes)
        for changes in (AugmentationConfig(), augmentation)
    )
    found = in_turns(augmented, plain)
    speed = option("--batch-size") / found.seconds
    print(f"\n{speed:.1f} images/s with augmentation, which makes a step {found.times_as_long:.3f} times as long")
    if not option("--no-bounds"):
        assert found.times_as_long <= AT_MOST


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
