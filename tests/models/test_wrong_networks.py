"""A name that is none, and weights of another network, padding or class count: one clear sentence each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from cxr_jax.errors import UserError
from cxr_jax.models.original_names import original_name, torch_shape
from cxr_jax.models.pretrained import load_weights
from cxr_jax.models.registry import ARCHITECTURES, AS_IN_TENSORFLOW, build_model, find_architecture, model_shapes
from cxr_jax.models.state import split_model

TWINS = [name.removeprefix(AS_IN_TENSORFLOW) for name in ARCHITECTURES if name.startswith(AS_IN_TENSORFLOW)]
TWINS = [name for name in TWINS if name in ARCHITECTURES]


def stored(path, name, *, classes=2, **metadata):
    """Writes weights of zeros for the architecture `name`, under the original's names."""
    names, shapes = ARCHITECTURES[name].original_names, model_shapes(name, classes=classes)[1:]
    tensors = {
        original_name(key, names): np.zeros(torch_shape(key, value), np.float32)
        for arrays in shapes
        for key, value in arrays.items()
    }
    save_file(tensors, path, metadata or None)
    return path


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("mobilnetv1_100", "mobilenetv1_100"),
        ("squeezenet1_0", "squeezenet1_1"),
        ("efficientnet_lite0", "tf_efficientnet_lite0"),
        ("resnet51", "resnet50"),
        ("densenet112", "densenet121"),
        ("inceptionv3", "inception_v3"),
        ("xception", "legacy_xception"),
        ("stephen", "stephen2019"),
        ("mobilenetv3_tiny", "mobilenetv2_tiny"),
    ],
)
def test_the_nearest_name_is_told(given, nearest):
    with pytest.raises(UserError) as raised:
        find_architecture(given)
    sentence = str(raised.value)
    assert sentence.startswith(f"there is no model called '{given}'")
    assert nearest in sentence


@pytest.mark.parametrize("stated", [True, False])
def test_weights_of_another_network_are_refused_whether_their_file_names_it_or_not(stated, tmp_path):
    metadata = {"architecture": "densenet_tiny"} if stated else {}
    path = stored(tmp_path / "w.safetensors", "densenet_tiny", **metadata)
    _, *arrays = split_model(build_model("squeezenet_tiny", classes=2))
    with pytest.raises(UserError) as raised:
        load_weights(path, "squeezenet_tiny", *arrays)
    told = (
        "holds weights of densenet_tiny, but the model is squeezenet_tiny; choose one or the other"
        if stated
        else "does not fit squeezenet_tiny, and seems to hold another network: "
    )
    assert f"{path} {told}" in str(raised.value)


@pytest.mark.parametrize("name", TWINS)
def test_tensorflows_padding_and_torchs_are_told_apart_in_both_directions(name, tmp_path):
    path = tmp_path / "w.safetensors"
    for theirs, ours, told in (
        (AS_IN_TENSORFLOW + name, name, f"holds weights of {AS_IN_TENSORFLOW}{name}, with TensorFlow's padding, but"),
        (name, AS_IN_TENSORFLOW + name, f"holds weights of {name}, but the model is {AS_IN_TENSORFLOW}{name}; choose"),
    ):
        padding = {"pad_type": "same"} if theirs != name else {}
        save_file({"one": np.zeros(1, np.float32)}, path, {"architecture": name, **padding})
        with pytest.raises(UserError, match=told):
            load_weights(path, ours, {}, {})


@pytest.mark.parametrize("name", ["squeezenet_tiny", "stephen2019_tiny"])
def test_weights_of_another_class_count_bring_all_but_the_classifier(name, tmp_path):
    path = stored(tmp_path / "w.safetensors", name, classes=5)
    _, *arrays = split_model(build_model(name, classes=2, seed=1))
    loaded = load_weights(path, name, *arrays)
    assert loaded.fresh == ("classifier.bias", "classifier.kernel")
    assert all(not np.any(value) for key, value in loaded.params.items() if key not in loaded.fresh)
    np.testing.assert_array_equal(loaded.params["classifier.kernel"], arrays[0]["classifier.kernel"])


def test_images_of_which_nothing_is_left_are_refused():
    model = build_model("inception_tiny", classes=2)
    assert jax.eval_shape(model, jnp.zeros((1, 80, 80, 3))).shape == (1, 2)
    with pytest.raises(UserError, match=r"too small for this network, .* behind \w+: set a larger data.image_size"):
        jax.eval_shape(model, jnp.zeros((1, 48, 48, 3)))
