"""A denoiser before any network: a stage that is trained before all phases, and left alone by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cxr_jax.config.schema import ModelConfig, PhaseConfig
from cxr_jax.errors import UserError
from cxr_jax.images.image_set import ImageSet
from cxr_jax.models.layers import Mode
from cxr_jax.models.network import DENOISER, has_prefix, stage_layers_of
from cxr_jax.models.registry import build_model
from cxr_jax.models.size import size_of
from cxr_jax.models.state import merge_model, split_model
from cxr_jax.training.denoising import with_trained_denoiser
from cxr_jax.training.network import build_network
from cxr_jax.training.optimizer import frozen_stages, partition, trains_head_alone

CONFIG = ModelConfig(name="mobilenetv1_tiny", denoiser=4)


@pytest.fixture(scope="module")
def images():
    smooth = scipy.ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 255, (12, 24, 24)), (0, 4, 4))
    grey = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    names = tuple(map(str, range(12)))
    return ImageSet(grey, np.zeros(12, np.int32), np.arange(12, dtype=np.int32), names, names, ("normal",) * 12)


def test_it_is_the_first_stage_and_begins_as_what_changes_nothing():
    plain, behind = (build_model("mobilenetv1_tiny", classes=2, seed=1, denoiser=channels) for channels in (0, 4))
    assert behind.stage_names == (DENOISER, *plain.stage_names)
    assert next(iter(stage_layers_of(behind))) == DENOISER
    params, others = split_model(plain)[1], split_model(behind)[1]
    # the values of its layers, and their names, are those that they have without it
    assert set(params) == {name for name in others if not has_prefix(name, (DENOISER,))}
    assert all(np.array_equal(value, others[name]) for name, value in params.items())
    x = jnp.asarray(np.random.default_rng(0).normal(0, 1, (1, 32, 32, 3)), jnp.float32)
    np.testing.assert_array_equal(behind.denoiser(x, Mode()), x)
    half = behind.denoiser(x.astype(jnp.bfloat16), Mode())
    assert half.dtype == jnp.bfloat16


def test_its_work_is_counted():
    plain, behind = (size_of("mobilenetv1_tiny", classes=2, image_size=48, denoiser=channels) for channels in (0, 4))
    weights = 9 * (3 * 4 + 4 * 4 + 4 * 4 + 4 * 3)
    assert behind.parameters - plain.parameters == weights + 4 + 4 + 4 + 3
    # beside the weights there are biases, ReLU and the subtraction; at the border nothing is multiplied
    assert behind.multiply_adds - plain.multiply_adds == pytest.approx(48 * 48 * weights, rel=0.05)


@pytest.mark.parametrize("trainable", [(), ("classifier",)])
def test_no_phase_trains_it(trainable):
    network = build_network(CONFIG, seed=0)
    trained, frozen = partition(network.params, PhaseConfig(trainable=trainable))
    assert not any(has_prefix(name, (DENOISER,)) for name in trained)
    assert any(has_prefix(name, (DENOISER,)) for name in frozen)
    assert DENOISER in frozen_stages(trained, frozen, network.stages)
    assert trains_head_alone(trained) == (trainable == ("classifier",))
    assert set(trained) | set(frozen) == set(network.params)
    with pytest.raises(UserError, match="no parameter is called denoiser"):
        partition(network.params, PhaseConfig(trainable=("denoiser",)))


def test_it_learns_to_take_noise_away_and_nothing_else_learns(images):
    network = build_network(CONFIG, seed=0)
    trained, told = with_trained_denoiser(network, images, 0, steps=60)
    left = float(told.split(" leaves ")[1].split("%")[0])
    assert left < 80
    model = merge_model(trained.graphdef, trained.params, trained.batch_stats)
    clean = np.repeat(images.images[:4, ..., None].astype(np.float32) / 128 - 1, 3, -1)
    noise = np.random.default_rng(5).standard_normal((4, 24, 24, 1), np.float32)
    noisy = clean + np.float32(0.15) * np.repeat(noise, 3, -1)
    cleaner = np.asarray(jax.jit(lambda x: model.denoiser(x, Mode()))(noisy))
    assert np.mean((cleaner - clean) ** 2) < 0.9 * np.mean((noisy - clean) ** 2)
    same = [name for name, value in network.params.items() if np.array_equal(value, trained.params[name])]
    assert all(has_prefix(name, (DENOISER,)) for name in set(network.params) - set(same))
    assert list(trained.params) == list(network.params)


def test_a_network_that_is_cut_has_none():
    with pytest.raises(UserError, match=r"cannot be cut behind .* and have a denoiser"):
        build_model("mobilenetv1_tiny", classes=2, until="logits", denoiser=4)
    with pytest.raises(ValueError, match="denoiser is -1, but must be from 0"):
        ModelConfig(denoiser=-1)
