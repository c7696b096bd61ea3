"""What does a recipe's augmentation cost of its training step? Run by hand, as `test_speed.py` is.

Steps with the augmentation of configs/mobilenetv2_best.toml and steps without any take turns on random images. The
network, its image size and the batch are those of the options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr_jax.bench.steps import training_step
from cxr_jax.bench.workload import DISTINCT_BATCHES, noise_images
from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import AugmentationConfig, Config, DataConfig, ModelConfig, TrainingConfig
from cxr_jax.config.shipped import find_config
from cxr_jax.training.network import build_network
from cxr_jax.training.plan import plan_run

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
    step, _ = training_step(plan, network, noise)
    step()
    return step
