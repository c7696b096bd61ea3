"""A network of another kind, with concatenation, biases, pooling and no BatchNorm, needs nothing but its stages."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax.checkpoints import read_newest
from cxr_jax.config.schema import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
    TrainingConfig,
)
from cxr_jax.explain.grad_cam import grad_cam
from cxr_jax.images.image_set import ImageSet
from cxr_jax.models import registry
from cxr_jax.models.layers import Classifier
from cxr_jax.models.network import NamedStage, StagedNetwork
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.network import build_network
from cxr_jax.training.plan import plan_run
from cxr_jax.training.run import train
from cxr_jax.training.saving import LAST

NAME = "fire"


class Fire(nnx.Module):
    """A 1 x 1 convolution, then two of which the outputs stand side by side (Iandola et al. 2016)."""

    def __init__(self, inputs, squeezed, outputs, generator):
        draw = lambda *shape: nnx.Param(jnp.asarray(generator.standard_normal(shape, np.float32) * np.float32(0.3)))  # noqa: E731
        self.squeeze, self.bias = draw(inputs, squeezed), nnx.Param(jnp.zeros((squeezed,)))
        self.left, self.right = draw(squeezed, outputs), draw(squeezed, outputs)

    def __call__(self, x):
        x = jax.nn.relu(x @ self.squeeze[...].astype(x.dtype) + self.bias[...].astype(x.dtype).reshape(1, 1, 1, -1))
        sides = [x @ side[...].astype(x.dtype) for side in (self.left, self.right)]
        return jax.nn.relu(jnp.concatenate(sides, axis=-1))


class FireNetwork(StagedNetwork):
    has_native_kernels = False

    def __init__(self, *, classes, generator, dropout_rate=0.0, **_):
        self.first, self.second = Fire(3, 4, 4, generator), Fire(8, 4, 8, generator)
        self.classifier, self.dropout_rate = Classifier(16, classes, generator), dropout_rate

    @property
    def stages(self):
        return (
            NamedStage("first", ("first",), functools.partial(self._halved, self.first)),
            NamedStage("second", ("second",), functools.partial(self._halved, self.second)),
        )

    @staticmethod
    def _halved(fire, x, mode):
        batch, height, width, channels = x.shape
        return fire(x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4)))


@pytest.fixture
def network(monkeypatch):
    entry = dataclasses.replace(registry.ARCHITECTURES["mobilenetv2_tiny"], build=FireNetwork, weights=())
    monkeypatch.setitem(registry.ARCHITECTURES, NAME, entry)
    return build_network(ModelConfig(NAME, dropout=0.2), seed=0)


def drawn(count):
    labels = (np.arange(count) % 2).astype(np.int32)
    images = np.random.default_rng(0).integers(0, 99, (count, 16, 16)).astype(np.uint8) + 99 * labels[:, None, None]
    names = tuple(map(str, range(count)))
    ids = np.arange(count, dtype=np.int32)
    return ImageSet(images.astype(np.uint8), labels, ids, names, names, ("normal",) * count)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_it_is_trained_by_stages_on_several_devices(network, tmp_path, precision):
    phases = (
        PhaseConfig("head", 1, trainable=("classifier",)),
        PhaseConfig("late", 1, trainable=("second", "classifier"), optimizer=OptimizerConfig(0.1, layer_decay=0.5)),
    )
    config = Config(
        data=DataConfig(image_size=16),
        training=TrainingConfig(batch_size=4, evaluation_batch_size=4, precision=precision),
        parallel=ParallelConfig(devices=2),
        phases=phases,
    )
    images = drawn(8)
    plan = plan_run(config, network, images, images)
    assert [phase.frozen_stages for phase in plan.phases] == [("first", "second"), ("first",)]
    assert not plan.activations.native_kernels

    class Silent:
        on_start = on_features = on_train = on_validation = on_note = lambda *_: None

    run = RunFolder(tmp_path)
    assert train(plan, network, images, images, run, Silent()) == "finished"
    arrays = read_newest(run.checkpoints / LAST).arrays
    for name, value in network.params.items():
        assert np.array_equal(arrays[f"params.{name}"], value) == name.startswith("first."), name


def test_heat_maps_can_be_made_at_each_of_its_stages(network):
    model = registry.build_model(NAME, classes=2, seed=1)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 16, 16, 3)), jnp.float32)
    assert [grad_cam(model, images, 1, stage).heat.shape for stage in model.stage_names] == [(2, 8, 8), (2, 4, 4)]
    entered = model.forward_from("first", model.activations(images, "first"))
    np.testing.assert_allclose(entered, model(images), rtol=1e-6)
