import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from cxr_jax.errors import UserError
from cxr_jax.models.pretrained import (
    CHECKSUM,
    MAXIMUM_LISTED,
    TORCH_LEAVES,
    as_ours,
    checksum,
    find_weights,
    load_weights,
    timm_name,
    torch_shape,
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
        timm_name(name): random.normal(size=torch_shape(name, array)).astype(np.float32)
        for name, array in arrays.items()
    }


def written(path, tensors, **metadata):
    save_file(
        tensors, path, {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    )
    return path


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
        assert as_ours(timm_name(name), tensor, array.ndim).shape == array.shape
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
