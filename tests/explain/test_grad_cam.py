import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.explain.grad_cam import grad_cam
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import batch_stats_of, merge_model, split_model

SIZE = 64


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(1).normal(size=(4, SIZE, SIZE, 3)), jnp.float32)


@pytest.fixture(scope="module")
def model(images):
    """A tiny network that has seen a batch, so that its BatchNorm statistics fit and its activations vary."""
    graphdef, params, batch_stats = split_model(build_model("mobilenetv2_tiny", classes=2, seed=1))

    @jax.jit
    def after_a_batch(batch_stats):
        network = merge_model(graphdef, params, batch_stats)
        network(images, train=True)
        return batch_stats_of(network)

    for _ in range(10):
        batch_stats = after_a_batch(batch_stats)
    return merge_model(graphdef, params, batch_stats)


def normalised(evidence: np.ndarray) -> np.ndarray:
    positive = np.maximum(evidence, 0)
    return positive / positive.max((1, 2), keepdims=True)


@pytest.mark.parametrize("class_index", [0, 1])
def test_last_stage_is_the_class_activation_map_of_zhou(model, images, class_index):
    """Before global average pooling and a linear layer, Grad-CAM is the CAM of Zhou et al. 2016."""
    features = np.asarray(jax.jit(model.features)(images), np.float64)
    kernel = np.asarray(model.classifier.kernel[...], np.float64)
    expected = normalised(features @ kernel[:, class_index])
    result = grad_cam(model, images, class_index, "conv_head")
    assert result.heat.dtype == jnp.float32
    assert not result.blank.any()
    np.testing.assert_allclose(result.heat, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stage", ["conv_stem", "blocks.1", "blocks.3"])
def test_weights_are_the_mean_gradients_by_finite_differences(model, images, stage):
    with jax.enable_x64(True):  # steps so small that no ReLU is passed need float64
        graphdef, params, batch_stats = jax.tree.map(lambda value: value.astype(np.float64), split_model(model))
        precise = merge_model(graphdef, params, batch_stats)
        pixels = images.astype(np.float64)
        activations = np.asarray(jax.jit(lambda values: precise.activations(values, stage))(pixels))
        result = grad_cam(precise, pixels, 1, stage)
        height, width, channels = activations.shape[1:]
        logits = jax.jit(lambda values: precise.forward_from(stage, values)[:, 1])
        weights = np.zeros((len(images), channels))
        for channel in range(channels):
            # Raising a whole channel adds up its gradients over space.
            step = np.zeros(channels)
            step[channel] = 1e-9
            difference = logits(jnp.asarray(activations + step)) - logits(jnp.asarray(activations - step))
            weights[:, channel] = np.asarray(difference) / (2e-9 * height * width)
    expected = normalised(np.einsum("bhwc,bc->bhw", activations, weights))
    assert result.heat.shape == (4, height, width)
    np.testing.assert_allclose(result.heat, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.05


@pytest.mark.parametrize("stage", ["conv_stem", "blocks.2", "conv_head"])
def test_maps_fill_0_to_1(model, images, stage):
    heat = np.asarray(grad_cam(model, images, 0, stage).heat)
    assert heat.min() >= 0
    np.testing.assert_allclose(heat.max((1, 2)), 1, rtol=0, atol=1e-6)


def test_a_class_for_each_image(model, images):
    mixed = grad_cam(model, images, jnp.array([0, 1, 1, 0]), "blocks.2").heat
    normal, pneumonia = (grad_cam(model, images, index, "blocks.2").heat for index in (0, 1))
    np.testing.assert_array_equal(mixed, np.where(np.array([0, 1, 1, 0])[:, None, None] == 0, normal, pneumonia))
    assert (np.asarray(normal) != np.asarray(pneumonia)).any()


def test_images_of_a_batch_do_not_influence_each_other(model, images):
    whole = grad_cam(model, images, 1, "blocks.2").heat
    alone = np.concatenate([grad_cam(model, image[None], 1, "blocks.2").heat for image in images])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-4)


def test_a_map_without_evidence_is_blank_and_not_divided_by_zero(model, images):
    graphdef, params, batch_stats = split_model(model)
    silent = merge_model(
        graphdef, params | {"classifier.kernel": jnp.zeros_like(params["classifier.kernel"])}, batch_stats
    )
    result = grad_cam(silent, images, 1, "conv_head")
    np.testing.assert_array_equal(result.blank, True)
    np.testing.assert_array_equal(result.heat, 0)


def test_evidence_against_a_class_only_is_blank_too(model, images):
    graphdef, params, batch_stats = split_model(model)
    against = {"classifier.kernel": -jnp.ones_like(params["classifier.kernel"])}
    result = grad_cam(merge_model(graphdef, params | against, batch_stats), images, 0, "conv_head")
    np.testing.assert_array_equal(result.blank, True)  # the activations after ReLU6 are never negative


def test_an_unknown_stage_is_told_with_the_known_ones(model, images):
    with pytest.raises(UserError, match=r"no stage 'blocks.9'.*conv_stem, blocks.0.*conv_head"):
        grad_cam(model, images, 0, "blocks.9")
