"""A tiny generator and drawn images on which its training takes a second; equal plans share one program."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.config.schema import Config, DataConfig, ParallelConfig, SynthesisConfig, TrainingConfig
from cxr_jax.images.image_set import ImageSet
from cxr_jax.runs.folder import RunFolder
from cxr_jax.synthesis import run as synthesis_run
from cxr_jax.synthesis.run import plan_synthesis, train_generator
from cxr_jax.training.feed import HostFeed

SIZE, COUNT = 16, 20


def draw_images(count: int, seed: int = 0) -> ImageSet:
    """Smooth pictures of one class, each of a group of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4)).astype(np.uint8)
    images = np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for image in coarse])
    return ImageSet(
        images=images,
        labels=np.zeros(count, np.int32),
        ids=np.arange(count, dtype=np.int32),
        files=tuple(f"f{number}" for number in range(count)),
        groups=tuple(f"g{seed}-{number}" for number in range(count)),
        subtypes=("normal",) * count,
    )


@pytest.fixture(scope="session")
def images() -> ImageSet:
    return draw_images(COUNT)


@pytest.fixture(scope="session")
def config() -> Config:
    return Config(
        data=DataConfig(image_size=SIZE),
        synthesis=SynthesisConfig(generator="dcgan", latent_size=6, channels=4, label_smoothing=0.1),
        training=TrainingConfig(epochs=2, batch_size=8, precision="float32"),
        parallel=ParallelConfig(devices=1),
    )


_KEPT, _COMPILE_ANEW = {}, synthesis_run.compile_synthesis_step


def compile_once(plan, networks, state, feed):
    """The program of a plan, which equal plans share."""
    if not isinstance(feed, HostFeed):
        return _COMPILE_ANEW(plan, networks, state, feed)
    training = dataclasses.replace(plan.config.training, epochs=1)
    key = repr((dataclasses.replace(plan.config, training=training), plan.devices, plan.activations))
    if key not in _KEPT:
        _KEPT[key] = _COMPILE_ANEW(plan, networks, state, feed)
    return _KEPT[key]


@pytest.fixture(scope="module", autouse=True)
def _shared_programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesis_run, "compile_synthesis_step", compile_once)
        yield


class Watcher:
    """Keeps what an observer is told; raises `leave` after the epoch `leave_after`."""

    def __init__(self, leave_after: int = 0, leave: type[BaseException] = RuntimeError) -> None:
        self.started, self.lines, self.pictures = [], [], []
        self._leave_after, self._leave = leave_after, leave

    def on_start(self, plan, step):
        self.started.append(step)

    def on_train(self, line):
        self.lines.append(line)
        if self._leave_after and line["step"] == self._leave_after:
            raise self._leave

    def on_epoch(self, epoch, picture):
        self.pictures.append(picture)

    def on_note(self, sentence):
        pass


@pytest.fixture
def trainer(config, images, tmp_path):
    """Trains a generator in a folder called by a name, under changes of the config."""

    def make(name, watcher=None, *, resume=False, **changes):
        (tmp_path / name).mkdir(exist_ok=True)
        changed = dataclasses.replace(config, **changes)
        plan = plan_synthesis(changed, images)
        return train_generator(plan, images, RunFolder(tmp_path / name), watcher or Watcher(), resume=resume)

    return make


@pytest.fixture(scope="session")
def undisturbed(config, images, tmp_path_factory):
    """The folder and the state of a finished training; tests compare others with it."""
    folder = RunFolder(tmp_path_factory.mktemp("undisturbed"))
    return folder, train_generator(plan_synthesis(config, images), images, folder, Watcher())


def arrays(state) -> list[np.ndarray]:
    """Every number of a state."""
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="session")
def arrays_of():
    return arrays


@pytest.fixture(scope="session")
def watcher() -> type[Watcher]:
    return Watcher


@pytest.fixture(scope="session")
def pictures_in():
    def found(folder: Path) -> list[str]:
        return sorted(path.name for path in (folder / "grids").iterdir())

    return found
