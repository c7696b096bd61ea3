import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_sample_image

from cxr_jax.errors import UserError
from cxr_jax.models import registry
from cxr_jax.models.original_names import TORCH_LEAVES, as_ours, expected_tensors, original_name, torch_shape
from cxr_jax.models.pretrained import (
    CHECKSUM,
    MAXIMUM_LISTED,
    checksum,
    find_weights,
    fit_weights,
    load_weights,
    numbers_of,
)
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import merge_model, split_model

NAME = "efficientnetv2_tiny"


@pytest.fixture(scope="module")
def network():
    """Parameters and statistics of a small network with three classes."""
    _, params, batch_stats = split_model(build_model(NAME, classes=3, seed=1))
    return params, batch_stats


def tensors_for(arrays, seed=0):
    """Random arrays under timm's names, in torch's layout."""
    random = np.random.default_rng(seed)
    return {
        original_name(name): random.normal(size=torch_shape(name, array)).astype(np.float32)
        for name, array in arrays.items()
    }


def written(path, tensors, **metadata):
    save_file(
        tensors, path, {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    )
    return path


@pytest.fixture
def weights_folder(real_weights):
    """The folder of real weights; skips where it does not hold those of the other networks."""
    folder = real_weights.parent
    if not (folder / "squeezenet1_1.imagenet.safetensors").is_file():
        pytest.skip(f"{folder} holds no weights of the other networks")
    return folder


@pytest.fixture
def tensors(network):
    return tensors_for(network[0] | network[1])


def test_every_array_is_replaced_and_laid_out_anew(network, tensors, tmp_path):
    tensors["bn1.num_batches_tracked"] = np.array(7)
    loaded = load_weights(written(tmp_path / "w.safetensors", tensors, architecture=NAME), NAME, *network)
    assert loaded.fresh == ()
    assert (list(loaded.params), list(loaded.batch_stats)) == (list(network[0]), list(network[1]))
    ours = loaded.params | loaded.batch_stats
    np.testing.assert_array_equal(ours["conv_stem.kernel"][0, 2, 1, 5], tensors["conv_stem.weight"][5, 1, 0, 2])
    depthwise = tensors["blocks.2.0.conv_dw.weight"]
    np.testing.assert_array_equal(ours["blocks.2.0.conv_dw.kernel"][2, 0, 0, 3], depthwise[3, 0, 2, 0])
    np.testing.assert_array_equal(ours["classifier.kernel"], tensors["classifier.weight"].T)
    np.testing.assert_array_equal(ours["bn2.scale"], tensors["bn2.weight"])
    np.testing.assert_array_equal(ours["bn2.var"], tensors["bn2.running_var"])
    np.testing.assert_array_equal(ours["blocks.2.0.se.conv_reduce.bias"], tensors["blocks.2.0.se.conv_reduce.bias"])
    assert all(value.dtype == jnp.float32 for value in ours.values())


def test_names_and_layouts_are_turned_round_without_loss(network):
    for name, array in (network[0] | network[1]).items():
        tensor = np.zeros(torch_shape(name, array))
        assert as_ours(original_name(name), tensor, array.ndim).shape == array.shape
    assert TORCH_LEAVES["scale"] == TORCH_LEAVES["kernel"] == "weight"


@pytest.mark.parametrize("classes", [None, 1000])
def test_only_the_classifier_may_stay_fresh_and_is_named(network, tensors, tmp_path, classes):
    for leaf in ("weight", "bias"):
        del tensors[f"classifier.{leaf}"]
    if classes:
        tensors |= {
            "classifier.weight": np.ones((classes, 64), np.float32),
            "classifier.bias": np.ones(classes, np.float32),
        }
    loaded = load_weights(written(tmp_path / "w.safetensors", tensors), NAME, *network)
    assert loaded.fresh == ("classifier.bias", "classifier.kernel")
    for name in loaded.fresh:
        np.testing.assert_array_equal(loaded.params[name], network[0][name])


def test_half_a_classifier_is_none(network, tensors, tmp_path):
    del tensors["classifier.bias"]
    loaded = load_weights(written(tmp_path / "w.safetensors", tensors), NAME, *network)
    assert loaded.fresh == ("classifier.bias", "classifier.kernel")
    np.testing.assert_array_equal(loaded.params["classifier.kernel"], network[0]["classifier.kernel"])


def test_one_error_lists_every_offender(network, tensors, tmp_path):
    del tensors["bn1.weight"]
    tensors["blocks.2.0.conv_pw.weight"] = np.zeros((64, 17, 1, 1), np.float32)
    tensors["conv_head.bias"] = np.zeros(64, np.float32)
    tensors["bn2.running_var"][3] = np.nan
    with pytest.raises(UserError) as raised:
        load_weights(written(tmp_path / "w.safetensors", tensors), NAME, *network)
    sentence = str(raised.value)
    assert sentence.endswith(
        "w.safetensors does not fit efficientnetv2_tiny: blocks.2.0.conv_pw.weight has shape (64, 17, 1, 1) instead of "
        "(64, 16, 1, 1); bn1.weight is missing; bn2.running_var is not finite; conv_head.bias is unknown"
    )


def test_a_kernel_of_equal_size_in_another_layout_is_refused(network, tensors, tmp_path):
    tensors["conv_stem.weight"] = tensors["conv_stem.weight"].transpose(2, 3, 1, 0).copy()
    with pytest.raises(UserError, match=r"conv_stem\.weight has shape \(3, 3, 3, 8\) instead of \(8, 3, 3, 3\)"):
        load_weights(written(tmp_path / "w.safetensors", tensors), NAME, *network)


def test_a_long_list_is_cut_and_counted(network, tmp_path):
    others = {f"layer{index:03}": np.zeros(1, np.float32) for index in range(50)}
    with pytest.raises(UserError) as raised:
        load_weights(written(tmp_path / "w.safetensors", others), NAME, *network)
    sentence = str(raised.value)
    offenders = len(network[0]) + len(network[1]) - 2 + 50
    assert sentence.count(" is missing") == MAXIMUM_LISTED
    assert sentence.endswith(f"; and {offenders - MAXIMUM_LISTED} more")


def test_weights_of_another_architecture_are_refused(network, tensors, tmp_path):
    path = written(tmp_path / "w.safetensors", tensors, architecture="mobilenetv2_100")
    with pytest.raises(UserError, match="holds weights of mobilenetv2_100, but the model is efficientnetv2_tiny"):
        load_weights(path, NAME, *network)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "folder"])
def test_a_file_that_is_no_safetensors_file_is_one_sentence(network, tensors, tmp_path, damage):
    path = written(tmp_path / "w.safetensors", tensors)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("these are not weights")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path = tmp_path
    with pytest.raises(UserError, match="cannot be read as a safetensors file"):
        load_weights(path, NAME, *network)


def test_half_precision_is_widened(network, tensors, tmp_path):
    half = {name: value.astype(np.float16) for name, value in tensors.items()}
    loaded = load_weights(written(tmp_path / "w.safetensors", half), NAME, *network)
    assert loaded.params["conv_head.kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(loaded.params["bn1.bias"], half["bn1.bias"].astype(np.float32))


def test_the_file_says_how_images_are_normalised(network, tensors, tmp_path):
    def statistics(**metadata):
        return load_weights(written(tmp_path / "w.safetensors", tensors, **metadata), NAME, *network).image_statistics()

    assert statistics(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert statistics() is None
    assert statistics(mean=[0.5, 0.5], std=[0.5, 0.5]) is None
    assert statistics(mean="grey", std=[0.4, 0.5, 0.6]) is None


def test_weights_are_found_by_path_and_in_the_folder_of_weights(tmp_path, monkeypatch):
    (tmp_path / "net.safetensors").touch()
    monkeypatch.delenv("CXR_WEIGHTS_DIR", raising=False)
    assert find_weights(str(tmp_path / "net.safetensors"), "mobilenetv2_100") == tmp_path / "net.safetensors"
    with pytest.raises(UserError, match="CXR_WEIGHTS_DIR is not set"):
        find_weights("net.safetensors", "mobilenetv2_100")
    monkeypatch.setenv("CXR_WEIGHTS_DIR", str(tmp_path))
    assert find_weights("net.safetensors", "mobilenetv2_100") == tmp_path / "net.safetensors"
    sentence = r"no weights file other\.safetensors, and none in CXR_WEIGHTS_DIR .* port mobilenetv2_100 other"
    with pytest.raises(UserError, match=sentence):
        find_weights("other.safetensors", "mobilenetv2_100")


def test_the_real_imagenet_weights_fit_and_give_features(real_weights):
    graphdef, *arrays = split_model(build_model("mobilenetv2_100", classes=2))
    loaded = load_weights(real_weights, "mobilenetv2_100", *arrays)
    assert loaded.fresh == ("classifier.bias", "classifier.kernel")

    @jax.jit
    def pooled(params, batch_stats, x):
        return merge_model(graphdef, params, batch_stats).pooled(x)

    ramp = np.linspace(-2, 2, 64, dtype=np.float32)
    image = jnp.asarray(np.broadcast_to(np.add.outer(ramp, -ramp)[None, :, :, None], (1, 64, 64, 3)))
    features = pooled(loaded.params, loaded.batch_stats, image)
    fresh = pooled(*arrays, image)
    # a trained network is selective: most of its features are off, and no two nets of chance agree with it
    assert 0.5 < float(jnp.mean(features < 0.05)) < 1
    assert float(jnp.max(features)) > 0.5
    assert abs(np.corrcoef(features[0], fresh[0])[0, 1]) < 0.2


def test_changed_tensors_are_noticed_by_the_checksum(network, tensors, tmp_path):
    path = written(tmp_path / "w.safetensors", tensors, **{CHECKSUM: checksum(tensors)})
    load_weights(path, NAME, *network)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for at in np.random.default_rng(0).integers(start, len(whole), 30):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(UserError, match="is damaged: its tensors are not those of the sha256 in it"):
            load_weights(path, NAME, *network)


def test_the_checksum_knows_names_types_shapes_and_values_and_no_order():
    one, two = np.arange(6, dtype=np.float32), np.ones((2, 3), np.float32)
    known = checksum({"a": one, "b": two})
    assert checksum({"b": two, "a": one}) == known
    others = [
        {"a": two, "b": one},
        {"a": one.reshape(2, 3), "b": two},
        {"a": one.view(np.int32), "b": two},
        {"a": one + 1, "b": two},
    ]
    assert len({known, *map(checksum, others)}) == 5
    assert checksum({"a": np.asfortranarray(two)}) == checksum({"a": two})


def test_weights_with_tensorflows_padding_are_refused_by_a_network_built_with_torchs(tmp_path):
    _, *arrays = split_model(build_model("mobilenetv1_100", classes=2))
    stated = {"architecture": "mobilenetv1_100", "pad_type": "same"}
    path = written(tmp_path / "w.safetensors", {"conv_stem.weight": np.zeros(1, np.float32)}, **stated)
    sentence = (
        "holds weights of tf_mobilenetv1_100, with TensorFlow's padding, but the model is mobilenetv1_100; choose one"
    )
    with pytest.raises(UserError, match=sentence):
        load_weights(path, "mobilenetv1_100", *arrays)
    # and the other way round
    path = written(tmp_path / "torch.safetensors", {}, architecture="mobilenetv1_100")
    with pytest.raises(UserError, match="holds weights of mobilenetv1_100, but the model is tf_mobilenetv1_100"):
        load_weights(path, "tf_mobilenetv1_100", *arrays)


@pytest.mark.parametrize("text", ["[0.5, 0.25, 0.75]", "0.5 0.25 0.75"])
def test_numbers_are_read_as_a_list_or_divided_by_spaces(text):
    assert numbers_of(text) == (0.5, 0.25, 0.75)


def test_tensors_of_another_name_are_found_and_those_without_use_passed_over():
    _, *arrays = split_model(build_model("inception_tiny", classes=3))
    names = registry.ARCHITECTURES["inception_tiny"].original_names
    tensors = {
        name: np.ones(shape, np.float32) for name, shape in expected_tensors(arrays[0] | arrays[1], names).items()
    }
    assert "fc.weight" in tensors
    tensors["AuxLogits.fc.weight"] = np.ones((3, 4), np.float32)
    loaded = fit_weights(tensors, {}, "drawn", "inception_tiny", *arrays)
    assert loaded.fresh == ()
    with pytest.raises(UserError, match=r"fc\.weight is unknown"):
        fit_weights({"more.fc.weight": np.ones(1)} | tensors, {}, "drawn", "inception_tiny", *arrays)


@pytest.mark.parametrize(
    ("name", "file", "statistics", "fresh"),
    [
        ("tf_mobilenetv1_100", "mobilenetv1_100", 0.5, False),
        ("squeezenet1_1", "squeezenet1_1", (0.485, 0.456, 0.406), False),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0", 0.5, False),
        ("tf_efficientnet_lite2", "tf_efficientnet_lite2", 0.5, False),
        ("tf_legacy_xception", "legacy_xception", 0.5, True),
    ],
)
def test_real_weights_fit_as_a_whole_and_bring_their_preprocessing(weights_folder, name, file, statistics, fresh):
    _, *shapes = registry.model_shapes(name, classes=1000)
    loaded = load_weights(weights_folder / f"{file}.imagenet.safetensors", name, *shapes)
    assert bool(loaded.fresh) == fresh
    mean, _ = loaded.image_statistics()
    assert mean == (statistics if isinstance(statistics, tuple) else (statistics,) * 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "size", "share", "seen"),
    [
        ("tf_mobilenetv1_100", "mobilenetv1_100", 224, 0.875, 476),  # carousel
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0", 224, 0.875, 698),  # palace
        ("tf_efficientnet_lite2", "tf_efficientnet_lite2", 260, 0.89, 698),
    ],
)
def test_real_weights_see_what_their_publishers_networks_see(weights_folder, name, file, size, share, seen):
    photograph = Image.fromarray(load_sample_image("china.jpg"))  # a pagoda
    scale = size / share / min(photograph.size)
    enlarged = photograph.resize([round(side * scale) for side in photograph.size], Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in enlarged.size)
    pixels = np.asarray(enlarged.crop((left, top, left + size, top + size)), np.float32)[None]
    graphdef, *shapes = registry.model_shapes(name, classes=1000)
    loaded = load_weights(weights_folder / f"{file}.imagenet.safetensors", name, *shapes)
    logits = jax.jit(lambda *network: merge_model(graphdef, *network)(pixels / 127.5 - 1))
    assert int(jnp.argmax(logits(loaded.params, loaded.batch_stats))) == seen
