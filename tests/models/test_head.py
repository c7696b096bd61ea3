"""Poolings and a transition layer behind any network: their values, their limits, and that its layers stay what they
are.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.config.schema import ModelConfig
from cxr_jax.errors import UserError
from cxr_jax.explain.grad_cam import grad_cam
from cxr_jax.models.head import Head, head_of, log_sum_exp, pool_by, with_head
from cxr_jax.models.network import TRANSITION, stage_layers_of, stage_of
from cxr_jax.models.original_names import original_name, torch_shape
from cxr_jax.models.pretrained import fit_weights
from cxr_jax.models.registry import ARCHITECTURES, build_model, find_architecture, model_shapes
from cxr_jax.models.size import measure
from cxr_jax.models.state import merge_model, split_model

TINY = [name for name in ARCHITECTURES if name.endswith("_tiny")]
PAPERS = Head("log_sum_exp", 10.0, transition=12)


# by one program each for a sharpness, not operation by operation
pooled = jax.jit(log_sum_exp, static_argnums=1)
gradient_of = jax.jit(jax.grad(lambda x, sharpness: log_sum_exp(x, sharpness).sum()), static_argnums=1)


def maps(seed, scale=1.0):
    return np.random.default_rng(seed).normal(0, scale, (2, 5, 3, 4)).astype(np.float32)


@given(
    seed=st.integers(0, 999),
    sharpness=st.sampled_from([0.01, 0.1, 1.0, 10.0, 1000.0]),
    scale=st.sampled_from([0, 1e-3, 1, 1e3]),
)
def test_log_sum_exp_is_its_formula_and_lies_between_mean_and_maximum(seed, sharpness, scale):
    values = maps(seed, scale)
    found = np.asarray(pooled(values, sharpness))
    exact = values.astype(np.float64)
    highest = exact.max((1, 2), keepdims=True)
    expected = highest[:, 0, 0] + np.log(np.exp(sharpness * (exact - highest)).mean((1, 2))) / sharpness
    # float32 rounds the mean of the exponentials by 1e-7, and its logarithm is divided by the sharpness
    slack = 1e-6 * np.abs(exact).max() + 5e-7 / sharpness
    np.testing.assert_allclose(found, expected, rtol=0, atol=slack)
    assert np.all(found >= exact.mean((1, 2)) - slack)
    assert np.all(found <= exact.max((1, 2)) + slack)


@given(seed=st.integers(0, 999))
def test_log_sum_exp_is_the_mean_where_it_is_blunt_and_the_maximum_where_it_is_sharp(seed):
    values = maps(seed)
    np.testing.assert_allclose(pooled(values, 0.01), values.mean((1, 2)), atol=0.05)
    np.testing.assert_allclose(pooled(values, 1000.0), values.max((1, 2)), atol=np.log(15) / 1000 + 1e-5)


@given(seed=st.integers(0, 999), sharpness=st.sampled_from([0.5, 10.0]))
def test_the_gradient_of_log_sum_exp_is_the_share_of_each_place(seed, sharpness):
    values = maps(seed)
    gradient = gradient_of(values, sharpness)
    weights = np.exp(sharpness * (values.astype(np.float64) - values.max((1, 2), keepdims=True)))
    np.testing.assert_allclose(gradient, weights / weights.sum((1, 2), keepdims=True), atol=1e-5)


@pytest.mark.parametrize("pooling", ["average", "max", "log_sum_exp"])
def test_bfloat16_maps_are_pooled_in_float32(pooling):
    values = jnp.asarray(maps(0)).astype(jnp.bfloat16)
    found = pool_by(Head(pooling), values)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, pool_by(Head(pooling), values.astype(jnp.float32)), rtol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_any_network_takes_a_head_and_its_own_layers_keep_their_names_and_shapes(name):
    """Nothing is computed: shapes alone."""
    side = find_architecture(name).image_size
    _, own, own_statistics = model_shapes(name, classes=3)
    graphdef, params, batch_stats = model_shapes(name, classes=3, head=PAPERS)
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)

    def run(params, batch_stats, images):
        model = merge_model(graphdef, params, batch_stats)
        features = model.features(images)
        assert model.stage_names[-1] == TRANSITION
        assert all(stage_of(key, stage_layers_of(model)) for key in params)
        return features, model.evidence(features), model.classify(features)

    features, evidence, logits = jax.eval_shape(run, params, batch_stats, images)
    assert features.shape[-1] == 12
    assert evidence.shape == (*features.shape[:3], 3)
    assert logits.shape == (2, 3)
    for whole, before in ((params, own), (batch_stats, own_statistics)):
        kept = {key: value.shape for key, value in whole.items() if not key.startswith(("classifier.", "transition."))}
        assert kept == {key: value.shape for key, value in before.items() if not key.startswith("classifier.")}


def test_equal_heads_make_equal_structures_and_values():
    """So that a restored network takes the program of the trained one."""
    first, second = (split_model(build_model("densenet_tiny", classes=3, seed=1, head=PAPERS)) for _ in range(2))
    assert first[0] == second[0]
    assert hash(first[0]) == hash(second[0])
    np.testing.assert_array_equal(first[1]["transition.conv.kernel"], second[1]["transition.conv.kernel"])
    blunt = split_model(build_model("densenet_tiny", classes=3, seed=1, head=Head("log_sum_exp", 1.0, 12)))
    assert blunt[0] != first[0]


def test_the_usual_head_is_no_other_network():
    usual, asked = (split_model(build_model("mobilenetv1_tiny", classes=2, **how)) for how in ({}, {"head": Head()}))
    assert usual[0] == asked[0]
    assert head_of(ModelConfig()).is_usual
    assert not head_of(ModelConfig(transition=4)).is_usual


@pytest.mark.parametrize("pooling", ["average", "max", "log_sum_exp"])
def test_class_activation_maps_are_grad_cam_at_the_last_stage_whatever_the_pooling(pooling):
    """The shares that places have in a pooled map sum to one, so that a channel's mean gradient is its weight."""
    model = build_model("mobilenetv1_tiny", classes=3, seed=1, head=Head(pooling, 10.0, 12))
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 32, 32, 3)), jnp.float32)
    activation = jax.jit(lambda x: jnp.maximum(model.evidence(model.features(x))[..., 2], 0))(images)
    expected = activation / activation.max((1, 2), keepdims=True)
    np.testing.assert_allclose(grad_cam(model, images, 2, TRANSITION).heat, expected, atol=1e-4)


def test_a_head_is_measured_with_the_network():
    plain, headed = (measure("mobilenetv1_tiny", classes=2, image_size=32, head=head) for head in (Head(), PAPERS))
    channels = 32
    added = 9 * channels * 12 + 2 * 12 + 2 * (12 - channels)
    assert headed.parameters - plain.parameters == added


def test_weights_without_a_transition_layer_fit_and_it_is_named_as_fresh():
    plain = build_model("densenet_tiny", classes=3, seed=2)
    _, params, batch_stats = split_model(plain)
    names = find_architecture("densenet_tiny").original_names
    tensors = {}
    for key, value in (params | batch_stats).items():
        shape = torch_shape(key, value)
        turned = value.transpose((3, 2, 0, 1) if value.ndim == 4 else (1, 0)) if key.endswith(".kernel") else value
        tensors[original_name(key, names)] = np.asarray(turned).reshape(shape)
    _, *headed = split_model(build_model("densenet_tiny", classes=3, seed=3, head=PAPERS))
    loaded = fit_weights(tensors, {}, "file", "densenet_tiny", *headed)
    behind = {"transition.conv.kernel", "transition.norm.scale", "transition.norm.bias"}
    assert set(loaded.fresh) == {"classifier.kernel", "classifier.bias", *behind}
    for key, value in (loaded.params | loaded.batch_stats).items():
        expected = (headed[0] | headed[1])[key] if key.split(".")[0] in ("classifier", TRANSITION) else None
        np.testing.assert_array_equal(value, (params | batch_stats)[key] if expected is None else expected)


def test_what_cannot_have_a_head_is_one_sentence():
    with pytest.raises(UserError, match="Linear has no stages behind which it could be pooled otherwise"):
        given = {"classes": 2, "image_size": 32, "lowering": "fast", "generator": np.random.default_rng(0)}
        with_head(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), PAPERS, **given)
    with pytest.raises(UserError, match="cannot be cut behind conv0 and have another pooling"):
        build_model("densenet_tiny", classes=2, until="conv0", head=PAPERS)
    headed = build_model("mobilenetv1_tiny", classes=2, head=PAPERS)
    with pytest.raises(UserError, match="has a stage called transition already"):
        with_head(headed, PAPERS, **given)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_native_kernels_and_xla_agree_behind_a_head(name, native_kernels):
    side = 75 if name.startswith("inception") else 64
    model = build_model(name, classes=2, seed=1, head=PAPERS)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(4, side, side, 3)), jnp.bfloat16)
    by_xla, by_kernels = (
        np.asarray(jax.jit(lambda x, native=native: model(x, native=native))(images), np.float32)
        for native in (False, True)
    )
    np.testing.assert_allclose(by_kernels, by_xla, atol=0.05 * np.abs(by_xla).max() + 1e-3)
