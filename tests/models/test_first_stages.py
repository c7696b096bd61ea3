"""A network cut behind a stage: what is left gives what that stage gives, and nothing behind it is kept."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax.errors import UserError
from cxr_jax.models.first_stages import LOGITS, FirstStages, has_linear_head
from cxr_jax.models.network import EVALUATION, stage_layers_of, stage_of
from cxr_jax.models.registry import build_model, model_shapes
from cxr_jax.models.size import measure
from cxr_jax.models.state import merge_model, split_model


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)


@pytest.mark.parametrize(
    ("name", "stage", "dropped"),
    [("densenet_tiny", "transition1", "denseblock2"), ("mobilenetv1_tiny", "blocks.1", "blocks.2")],
)
def test_it_gives_the_mean_of_what_the_stage_gives_and_keeps_nothing_behind_it(name, stage, dropped, images):
    whole, cut = build_model(name, classes=2, seed=1), build_model(name, classes=2, seed=1, until=stage)
    expected = whole.activations(images, stage)
    np.testing.assert_array_equal(cut.features(images, EVALUATION), expected)
    np.testing.assert_allclose(cut.pooled(images), expected.mean((1, 2)), rtol=1e-5)
    assert cut(images).shape == (2, 2)
    assert cut.stage_names == whole.stage_names[: whole.stage_names.index(stage) + 1]
    _, params, _ = split_model(cut)
    assert not [key for key in params if dropped in key]
    assert all(stage_of(key, stage_layers_of(cut)) for key in params)


@pytest.mark.parametrize("name", ["squeezenet_tiny", "stephen2019_tiny"])
def test_the_last_stage_of_all_gives_the_logits_of_the_networks_own_classifier(name, images):
    cut = build_model(name, classes=2, seed=1, until=LOGITS)
    assert cut.stage_names[-1] == LOGITS
    logits = cut.network(images)
    assert logits.shape == (2, 1000)
    linear = has_linear_head(cut.network)
    assert linear == (name == "stephen2019_tiny")
    bias = cut.network.classifier.bias[...] if linear else 0.0
    np.testing.assert_allclose(cut.pooled(images) + jnp.asarray(bias).reshape(1, -1), logits, rtol=1e-4, atol=1e-5)
    assert {key.split(".")[0] for key in split_model(cut)[1]} == {"network", "classifier"}


def test_its_shapes_and_its_size_are_known_without_values():
    graphdef, params, batch_stats = model_shapes("densenet_tiny", classes=2, until="transition1")
    _, *arrays = split_model(build_model("densenet_tiny", classes=2, until="transition1"))
    for expected, found in zip(arrays, (params, batch_stats), strict=True):
        assert {key: value.shape for key, value in expected.items()} == {
            key: value.shape for key, value in found.items()
        }
    assert merge_model(graphdef, *arrays).stage_names[-1] == "transition1"
    cut, whole = (measure("densenet_tiny", classes=2, image_size=32, until=stage) for stage in ("conv0", ""))
    assert cut.parameters < whole.parameters
    assert cut.multiply_adds < whole.multiply_adds


def test_a_stage_that_is_not_there_is_one_sentence_with_the_nearest():
    with pytest.raises(UserError, match=r"has no stage 'transition7'; did you mean transition1\? \(it has conv0"):
        build_model("densenet_tiny", classes=2, until="transition7")


def test_a_plain_module_has_no_stages_to_cut_behind():
    with pytest.raises(UserError, match="Linear has no stages whose output could be taken: make it a StagedNetwork"):
        linear = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        FirstStages(linear, "", classes=2, image_size=32, generator=np.random.default_rng(0))
