"""The second classifier of InceptionV3, which helps to train the network and has no part in what it says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.models import registry
from cxr_jax.models.activations import relu
from cxr_jax.models.layers import LayerRules, Mode
from cxr_jax.models.networks.inceptionv3 import AuxiliaryClassifier, Branches, InceptionV3
from cxr_jax.models.original_names import original_name
from cxr_jax.models.state import merge_model, split_model

NAME = "inception_with_auxiliary"


@pytest.fixture
def shapes(monkeypatch):
    """Structure and shapes of the whole network with its second classifier, for three classes."""
    entry = dataclasses.replace(
        registry.ARCHITECTURES["inception_v3"], build=functools.partial(InceptionV3, has_auxiliary=True)
    )
    monkeypatch.setitem(registry.ARCHITECTURES, NAME, entry)
    return registry.model_shapes(NAME, classes=3)


def test_it_has_timms_names_and_as_many_parameters(shapes):
    _, params, _ = shapes
    names = {original_name(key, registry.ARCHITECTURES[NAME].original_names): value for key, value in params.items()}
    second = {name: value.shape for name, value in names.items() if name.startswith("AuxLogits.")}
    assert second == {
        "AuxLogits.conv0.conv.weight": (1, 1, 768, 128),
        "AuxLogits.conv0.bn.weight": (128,),
        "AuxLogits.conv0.bn.bias": (128,),
        "AuxLogits.conv1.conv.weight": (5, 5, 128, 768),
        "AuxLogits.conv1.bn.weight": (768,),
        "AuxLogits.conv1.bn.bias": (768,),
        "AuxLogits.fc.weight": (768, 3),
        "AuxLogits.fc.bias": (3,),
    }
    without = registry.model_shapes("inception_v3", classes=3)[1]
    assert params.keys() - without.keys() == {key for key in params if key.startswith("AuxLogits.")}


def test_it_is_fed_by_the_stage_in_the_midst_of_the_network(shapes):
    graphdef, params, batch_stats = shapes

    def logits(params, batch_stats, images):
        return merge_model(graphdef, params, batch_stats).auxiliary_logits(images, Mode())

    images = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
    assert jax.eval_shape(logits, params, batch_stats, images).shape == (2, 3)


def test_its_logits_are_those_of_a_pass_by_hand():
    generator = np.random.default_rng(0)
    rules = LayerRules(padding="symmetric", activation=relu, epsilon=1e-3)
    model = AuxiliaryClassifier(6, 3, Branches(rules, generator, divisor=8))
    _, params, _ = split_model(model)
    x = generator.normal(size=(1, 17, 17, 6)).astype(np.float32)
    found = model(jnp.asarray(x), Mode())
    # the means of windows of 5 x 5 at stride 3, a pointwise product, and one window of 5 x 5; fresh statistics
    starts = range(0, 13, 3)
    means = np.array([[x[0, row : row + 5, column : column + 5].mean((0, 1)) for column in starts] for row in starts])
    values = {name: np.asarray(value) for name, value in params.items()}
    first = np.maximum(means @ values["conv0.conv.kernel"][0, 0] / np.sqrt(1 + 1e-3), 0)
    second = np.maximum(np.einsum("yxi,yxio->o", first, values["conv1.conv.kernel"]) / np.sqrt(1 + 1e-3), 0)
    np.testing.assert_allclose(found[0], second @ values["fc.kernel"] + values["fc.bias"], rtol=1e-4, atol=1e-5)
