"""Every network is trained, frozen by stage and explained alike: nothing but its stages is known of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
from cxr_jax.errors import UserError
from cxr_jax.explain.grad_cam import grad_cam
from cxr_jax.images.image_set import ImageSet
from cxr_jax.models.network import CLASSIFIER, has_prefix
from cxr_jax.models.registry import ARCHITECTURES, build_model
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.network import build_network
from cxr_jax.training.plan import plan_run
from cxr_jax.training.run import train
from cxr_jax.training.saving import LAST

TINY = [name for name in ARCHITECTURES if name.endswith("_tiny")]

WHOLE = ("mobilenetv2", "efficientnetv2")
"""Families that other tests train in many ways."""

QUICK = ("mobilenetv1_tiny", "stephen2019_tiny")
"""With BatchNorm and without: the others take longer to compile."""


def side_of(name):
    return 75 if name.startswith("inception") else 32


def drawn(side, count=4):
    labels = (np.arange(count) % 2).astype(np.int32)
    images = np.random.default_rng(0).integers(0, 99, (count, side, side)) + 99 * labels[:, None, None]
    names, ids = tuple(map(str, range(count))), np.arange(count, dtype=np.int32)
    return ImageSet(images.astype(np.uint8), labels, ids, names, names, ("normal",) * count)


class Silent:
    on_start = on_features = on_train = on_validation = on_note = lambda *_: None


def trained(name, folder, precision):
    """The network before and after a phase of the classifier alone, on cached features, and one of the later stages."""
    network = build_network(ModelConfig(name, dropout=0.2), seed=0)
    stages = tuple(network.stages)
    late = stages[len(stages) // 2 :]
    phases = (
        PhaseConfig("head", 1, trainable=("classifier",)),
        PhaseConfig("late", 1, trainable=late, optimizer=OptimizerConfig(0.1, layer_decay=0.5)),
    )
    config = Config(
        data=DataConfig(image_size=side_of(name)),
        training=TrainingConfig(batch_size=4, evaluation_batch_size=4, precision=precision),
        parallel=ParallelConfig(devices=1),
        phases=phases,
    )
    images, run = drawn(side_of(name)), RunFolder(folder)
    plan = plan_run(config, network, images, images)
    assert set(plan.phases[1].frozen_stages) == set(stages[: len(stages) // 2])
    assert train(plan, network, images, images, run, Silent()) == "finished"
    after = read_newest(run.checkpoints / LAST).arrays
    return network, {key: after[f"params.{key}"] for key in network.params}, late


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in TINY
        if not name.startswith(WHOLE)
    ],
)
def test_it_is_trained_by_stages(name, tmp_path):
    network, after, late = trained(name, tmp_path, "float32")
    moved = {key for key, value in network.params.items() if not np.array_equal(after[key], value)}
    assert all(np.isfinite(value).all() for value in after.values())
    for stage, layers in network.stages.items():
        has_moved = any(has_prefix(key, layers) for key in moved)
        assert has_moved == (stage in late or stage == CLASSIFIER), stage


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_it_is_trained_in_bfloat16_by_native_kernels_where_it_has_them(name, tmp_path, native_kernels):
    network, after, _ = trained(name, tmp_path, "bf16")
    assert all(np.isfinite(value).all() for value in after.values())
    assert any(not np.array_equal(after[key], value) for key, value in network.params.items())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.startswith("inception") else ()) for name in TINY]
)
def test_heat_maps_are_made_at_its_first_and_last_stage(name):
    side = side_of(name)
    model = build_model(name, classes=2, seed=1)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, side, side, 3)), jnp.float32)
    for stage in (model.stage_names[0], model.stage_names[-1]):
        heat = grad_cam(model, images, 1, stage).heat
        assert heat.shape[0] == 2
        assert heat.ndim == 3
        assert 0 <= float(heat.min()) <= float(heat.max()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_native_kernels_and_xla_agree(name, native_kernels):
    side = side_of(name)
    model = build_model(name, classes=2, seed=1)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(4, side, side, 3)), jnp.bfloat16)
    by_xla, by_kernels = (
        np.asarray(jax.jit(lambda x, native=native: model(x, native=native))(images), np.float32)
        for native in (False, True)
    )
    np.testing.assert_allclose(by_kernels, by_xla, atol=0.05 * np.abs(by_xla).max() + 1e-3)


@pytest.mark.parametrize("name", ["squeezenet_tiny", "densenet_tiny", "xception_tiny", "inception_tiny"])
def test_stochastic_depth_is_refused_where_no_block_can_be_left_out(name):
    with pytest.raises(UserError, match=r"has no blocks that can be left out: set model\.stochastic_depth to 0"):
        build_model(name, classes=2, stochastic_depth=0.1)


def test_an_image_too_small_for_a_fully_connected_layer_is_one_sentence():
    model = build_model("stephen2019_tiny", classes=2)
    for side in (8, 28):
        with pytest.raises(UserError, match=r"needs images of 32 px or more: set data\.image_size to 32"):
            model(jnp.zeros((1, side, side, 3)))
    assert model(jnp.zeros((1, 40, 40, 3))).shape == (1, 2)
