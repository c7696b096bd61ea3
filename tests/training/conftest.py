"""A tiny network and drawn images on which training takes a second."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_jax.config.schema import (
    Config,
    DataConfig,
    ModelConfig,
    ParallelConfig,
    PhaseConfig,
    TrainingConfig,
    ValidationConfig,
)
from cxr_jax.images.image_set import ImageSet
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.network import Network
from tests.shared_programs import compile_anew, share_programs

sys.path.append(str(Path(__file__).parent))
from smallest_network import smallest_network
from training_runs import PHASES, SIZE, TrainingRun, Watcher, draw_images


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
    return smallest_network(config.model)


@pytest.fixture(scope="module", autouse=True)
def _shared_programs() -> Iterator[None]:
    """Runs of the same plan take the same program."""
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch)
        yield


@pytest.fixture
def compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this test compile programs of their own."""
    compile_anew(monkeypatch)


@pytest.fixture
def trainer(config, network, train_images, validation_images, tmp_path):
    """Makes a run called by a name, under changes of the config."""

    def make(name: str, watcher: Watcher | None = None, **changes) -> TrainingRun:
        (tmp_path / name).mkdir(exist_ok=True)
        changed, folder = dataclasses.replace(config, **changes), RunFolder(tmp_path / name)
        return TrainingRun(changed, network, train_images, validation_images, folder, watcher or Watcher())

    return make


@pytest.fixture(scope="session")
def train_undisturbed(config, train_images, validation_images, tmp_path_factory):
    """Trains a run of these phases to its end, once for all tests that only read it."""

    @functools.cache
    def run(phases: tuple[PhaseConfig, ...] = ()) -> TrainingRun:
        changed, network = dataclasses.replace(config, phases=phases), smallest_network(config.model)
        folder = RunFolder(tmp_path_factory.mktemp("undisturbed"))
        trained = TrainingRun(changed, network, train_images, validation_images, folder, Watcher())
        trained.train()
        return trained

    return run


@pytest.fixture(scope="session")
def undisturbed(train_undisturbed) -> TrainingRun:
    """A finished run of the config; tests compare others with it."""
    return train_undisturbed()


@pytest.fixture(scope="session")
def undisturbed_phases(train_undisturbed) -> TrainingRun:
    """A finished run of two phases; tests compare others with it."""
    return train_undisturbed(PHASES)
