"""A tiny network and drawn images on which training takes a second."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_jax.config.schema import Config, DataConfig, ModelConfig, ParallelConfig, TrainingConfig, ValidationConfig
from cxr_jax.data.image_set import ImageSet
from cxr_jax.training.network import Network, build_network

SIZE = 32


def draw_images(count: int, seed: int) -> ImageSet:
    """Noise that is brighter in the middle where the label is 1: learnable in a few steps."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.int32)
    images = random.integers(0, 120, (count, SIZE, SIZE))
    images[labels == 1, 8:24, 8:24] += 100
    return ImageSet(
        images=images.astype(np.uint8),
        labels=labels,
        ids=np.arange(count, dtype=np.int32),
        files=tuple(f"{index}.jpeg" for index in range(count)),
        groups=tuple(str(index) for index in range(count)),
        subtypes=tuple("normal" if label == 0 else "bacteria" for label in labels),
    )


@pytest.fixture(scope="session")
def train_images() -> ImageSet:
    return draw_images(44, seed=0)


@pytest.fixture(scope="session")
def validation_images() -> ImageSet:
    return draw_images(10, seed=1)


@pytest.fixture(scope="session")
def config() -> Config:
    return Config(
        data=DataConfig(image_size=SIZE),
        model=ModelConfig(name="mobilenetv2_tiny", dropout=0.2),
        training=TrainingConfig(epochs=2, batch_size=8, evaluation_batch_size=8),
        validation=ValidationConfig(every_iterations=2),
        parallel=ParallelConfig(devices=2),
    )


@pytest.fixture(scope="session")
def network(config: Config) -> Network:
    return build_network(config.model, seed=0)
