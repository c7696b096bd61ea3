import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax.models.network import has_prefix, stage_layers_of
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import batch_stats_of, merge_model, split_model

NAMES = ["mobilenetv2_tiny", "efficientnetv2_tiny"]


STAGE_SIZES = {"mobilenetv2_tiny": [17, 17, 9, 5, 3, 3], "efficientnetv2_tiny": [17, 17, 9, 5, 5, 5]}
"""Sides of the stages' outputs for images of 33 pixels."""


def images(count=3, size=33):
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, size, size, 3)), jnp.float32)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def jitted(model):
    """`model` as a compiled function of images and keyword arguments, in evaluation mode."""
    graphdef, params, batch_stats = split_model(model)
    return jax.jit(lambda x, **rest: merge_model(graphdef, params, batch_stats)(x, **rest))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_can_be_left_and_entered_at_every_stage(name):
    model = build_model(name, classes=3, seed=1)
    assert model.stage_names == ("conv_stem", *(f"blocks.{index}" for index in range(4)), "conv_head")
    parts = split_model(model)

    @jax.jit
    def run(x):
        model = merge_model(*parts)
        features = model.features(x)
        ways = [model(x), model.classify(features), model.classify_pooled(model.pooled(x))]
        left = {stage: model.activations(x, stage) for stage in model.stage_names}
        return ways, features, left, [model.forward_from(stage, left[stage]) for stage in left]

    (logits, *others), features, left, entered = run(images())
    assert logits.shape == (3, 3)
    for other in (*others, *entered):
        np.testing.assert_allclose(other, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(left["conv_head"], features)
    assert [left[stage].shape[1] for stage in model.stage_names] == STAGE_SIZES[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_array_belongs_to_one_stage_or_the_classifier(name):
    model = build_model(name, classes=2)
    stages = stage_layers_of(model)
    assert [*stages] == [*model.stage_names, "classifier"]
    _, params, batch_stats = split_model(model)
    for array in (*params, *batch_stats):
        assert sum(has_prefix(array, layers) for layers in stages.values()) == 1, array


def test_an_unknown_stage_is_refused_by_name():
    model = build_model("mobilenetv2_tiny", classes=2)
    with pytest.raises(ValueError, match=r"no stage 'blocks\.9'; the stages are conv_stem, blocks\.0"):
        model.activations(images(1), "blocks.9")
    with pytest.raises(ValueError, match="no stage"):
        model.forward_from("bn1", images(1))


def test_the_fast_lowering_and_the_plain_one_agree():
    name, x = "efficientnetv2_tiny", images()

    def loss_and_gradients(lowering):
        graphdef, params, batch_stats = split_model(build_model(name, classes=2, seed=3, lowering=lowering))

        def loss(params):
            model = merge_model(graphdef, params, batch_stats)
            return jnp.sum(jnp.sin(model(x, train=True))), batch_stats_of(model)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (fast, fast_stats), fast_gradients = loss_and_gradients("fast")
    (plain, plain_stats), plain_gradients = loss_and_gradients("plain")
    np.testing.assert_allclose(fast, plain, rtol=1e-4)
    for found, expected in ((fast_stats, plain_stats), (fast_gradients, plain_gradients)):
        for key, value in expected.items():
            tolerance = 1e-3 * float(jnp.abs(value).max()) + 1e-6
            np.testing.assert_allclose(found[key], value, atol=tolerance, rtol=0, err_msg=key)


def test_evaluation_does_not_move_the_statistics_and_ignores_the_company():
    graphdef, params, before = split_model(build_model("efficientnetv2_tiny", classes=2, dropout_rate=0.5))

    @jax.jit
    def run(x):
        model = merge_model(graphdef, params, before)
        return model(x), batch_stats_of(model)

    x = images()
    together, after = run(x)
    alone, _ = run(x.at[0].set(0.0).at[2].set(9.0))
    np.testing.assert_allclose(together[1], alone[1], rtol=1e-5)
    for key, value in after.items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("rates", [{"dropout_rate": 0.5}, {"stochastic_depth": 0.8}])
def test_random_layers_follow_the_example_and_not_its_place(rates):
    run = jitted(build_model("efficientnetv2_tiny", classes=2, **rates))
    x, order = images(6), jnp.array([3, 1, 5, 0, 2, 4])
    drawn = run(x, keys=keys(6))
    np.testing.assert_allclose(run(x[order], keys=keys(6)[order]), drawn[order], rtol=1e-5)
    assert (run(x, keys=keys(6, seed=1)) != drawn).any()
    assert (run(x) != drawn).any()


def test_dropout_and_stochastic_depth_draw_apart():
    # the mask of dropout must not tell which blocks were skipped
    both = jitted(build_model("efficientnetv2_tiny", classes=2, dropout_rate=0.5, stochastic_depth=0.8))
    depth = jitted(build_model("efficientnetv2_tiny", classes=2, stochastic_depth=0.8))
    assert (both(images(), keys=keys(3)) != depth(images(), keys=keys(3))).any()


def test_images_need_not_be_square():
    parts = split_model(nnx.eval_shape(lambda: build_model("mobilenetv2_tiny", classes=2)))
    graphdef, arrays = parts[0], parts[1:]
    x = jax.ShapeDtypeStruct((2, 65, 48, 3), jnp.float32)
    shape = jax.eval_shape(lambda arrays, x: merge_model(graphdef, *arrays).features(x), arrays, x)
    assert shape.shape == (2, 5, 3, 64)
