"""Networks whose explanation is known, and images with one bright patch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.layers import Mode
from cxr_jax.models.network import NamedStage, StagedNetwork
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import batch_stats_of, merge_model, split_model
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.vocabulary import CLASS_NAMES

SIZE, CELL = 48, 8


def trained_model(model: nnx.Module, *, architecture: str, size: int = SIZE) -> TrainedModel:
    """Return a network as a restored run would hand it over, fed with grey levels in 0..1."""
    description = NetworkDescription(
        architecture=architecture,
        classes=CLASS_NAMES,
        image_size=size,
        resize="squash",
        interpolation="area",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        weights="",
        weights_sha256="",
        parameters=0,
    )
    return TrainedModel(description, *split_model(model), step=1, threshold=0.5, threshold_rule="fixed")


class BrightPatch(StagedNetwork):
    """Says PNEUMONIA where one cell of the image is brighter than half, and looks at nothing else."""

    def __init__(self) -> None:
        self.gain = nnx.Param(jnp.float32(400.0))
        self.seen = nnx.BatchStat(jnp.float32(0.0))

    @property
    def stages(self) -> tuple[NamedStage, ...]:
        return (NamedStage("cells", ("seen",), self._cells),)

    @staticmethod
    def _cells(x: jax.Array, mode: Mode) -> jax.Array:
        count, height, width, _ = x.shape
        cells = x[..., :1].reshape(count, height // CELL, CELL, width // CELL, CELL, 1).mean((2, 4))
        return jax.nn.relu(cells - 0.5)

    def classifier(self, pooled: jax.Array) -> jax.Array:
        margin = self.gain[...] * (pooled[:, 0] - 0.006)
        return jnp.stack([-margin, margin], axis=1)


class Patches(NamedTuple):
    """Images with a bright patch of one cell each."""

    images: np.ndarray  # uint8 [N, SIZE, SIZE]
    cells: np.ndarray  # int [N, 2], row and column of the patch
    classes: np.ndarray  # int [N], all PNEUMONIA
    clusters: np.ndarray  # int [N]


@pytest.fixture(scope="session")
def bright_patch() -> TrainedModel:
    """The network that looks at a bright cell only."""
    return trained_model(BrightPatch(), architecture="none")


@pytest.fixture(scope="session")
def patches() -> Patches:
    """Twenty images with a bright patch somewhere."""
    random = np.random.default_rng(3)
    images = random.integers(40, 80, (20, SIZE, SIZE), dtype=np.uint8)
    cells = random.integers(0, SIZE // CELL, (20, 2))
    for image, (row, column) in zip(images, cells, strict=True):
        image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 230
    return Patches(images, cells, np.ones(20, int), np.arange(20))


@pytest.fixture(scope="session")
def textures() -> np.ndarray:
    """Twelve smooth random images, uint8 [12, SIZE, SIZE]."""
    import cv2

    coarse = np.random.default_rng(5).integers(0, 256, (12, 7, 7), dtype=np.uint8)
    return np.stack([cv2.resize(one, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for one in coarse])


@pytest.fixture(scope="session")
def untrained_efficientnet() -> TrainedModel:
    """A small network of the other kind, as it is drawn."""
    return trained_model(build_model("efficientnetv2_tiny", classes=2, seed=1), architecture="efficientnetv2_tiny")


@pytest.fixture(scope="session")
def tiny(textures: np.ndarray) -> TrainedModel:
    """A real network whose BatchNorm statistics fit `textures`."""
    graphdef, params, batch_stats = split_model(build_model("mobilenetv2_tiny", classes=2, seed=1))
    images = jnp.repeat(jnp.asarray(textures, jnp.float32)[..., None] / 255, 3, axis=-1)

    @jax.jit
    def after_a_batch(batch_stats):
        network = merge_model(graphdef, params, batch_stats)
        network(images, train=True)
        return batch_stats_of(network)

    for _ in range(30):
        batch_stats = after_a_batch(batch_stats)
    return trained_model(merge_model(graphdef, params, batch_stats), architecture="mobilenetv2_tiny")
