import hashlib
import json
import os
import sys

import numpy as np
import pytest
from drawn import drawn_tensors
from safetensors.numpy import save_file

from cxr_jax.errors import UserError
from cxr_jax.models.registry import model_shapes
from cxr_jax.porting.hub import PUBLISHED_LICENSE, PUBLISHER
from cxr_jax.porting.requirements import import_timm
from cxr_jax.porting.sources import read_from_file, read_published

NAME = "efficientnetv2_tiny"


def weights(name=NAME, classes=5):
    _, params, batch_stats = model_shapes(name, classes=classes)
    return {key: value.astype(np.float32) for key, value in drawn_tensors(params | batch_stats).items()}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def timm():
    try:
        return import_timm("this test")
    except UserError as error:
        pytest.skip(str(error))


def test_a_plain_safetensors_file_is_recognised(tmp_path):
    tensors, path = weights(), tmp_path / "net.safetensors"
    save_file(tensors | {"bn1.num_batches_tracked": np.array(3)}, path)
    source = read_from_file(path)
    assert source.architecture == NAME
    assert source.classes == 5
    assert source.tensors.keys() == tensors.keys()
    np.testing.assert_array_equal(source.tensors["bn1.weight"], tensors["bn1.weight"])
    assert source.source == f"net.safetensors, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert source.metadata() | {"source": ""} == {
        "architecture": NAME,
        "image_size": "224",
        "mean": "[0.5, 0.5, 0.5]",
        "std": "[0.5, 0.5, 0.5]",
        "interpolation": "bicubic",
        "source": "",
        "license": "unknown",
        "naming": "timm",
    }


def test_what_a_file_says_of_itself_is_kept(tmp_path):
    metadata = {
        "architecture": "mobilenetv2_tiny",
        "image_size": "96",
        "mean": "[0.1, 0.2, 0.3]",
        "std": "[1, 2]",  # not three values: the architecture's are taken
        "interpolation": "bilinear",
        "source": "somewhere",
        "license": "mit",
    }
    save_file(weights("mobilenetv2_tiny"), tmp_path / "net.safetensors", metadata)
    source = read_from_file(tmp_path / "net.safetensors")
    expected = metadata | {"std": "[0.229, 0.224, 0.225]", "naming": "timm"}
    assert source.metadata() == expected
    assert read_from_file(tmp_path / "net.safetensors", license="bsd").license == "bsd"


def test_the_caller_may_name_the_architecture(tmp_path):
    save_file({"conv_stem.weight": np.zeros((8, 3, 3, 3), np.float32)}, tmp_path / "net.safetensors")
    with pytest.raises(UserError, match="fit none of our networks as a whole; name one by --architecture"):
        read_from_file(tmp_path / "net.safetensors")
    assert read_from_file(tmp_path / "net.safetensors", NAME).architecture == NAME
    with pytest.raises(UserError, match="no model called 'efficient'"):
        read_from_file(tmp_path / "net.safetensors", "efficient")


def test_a_file_of_another_kind_is_refused_by_its_name(tmp_path):
    (tmp_path / "net.onnx").touch()
    with pytest.raises(
        UserError, match=r"net\.onnx is no file of weights by its name; such files end in \.safetensors"
    ):
        read_from_file(tmp_path / "net.onnx")


def test_torch_files_need_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "net.pth").touch()
    with pytest.raises(UserError, match=r"reading net\.pth needs torch"):
        read_from_file(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda state: state, ""),
        (lambda state: {"epoch": 3, "state_dict": state}, "module."),
        (lambda state: {"model": {}, "state_dict_ema": state}, "_orig_mod."),
        (lambda state: state, "module._orig_mod."),
        (lambda state: state, "_orig_mod.module."),
    ],
)
def test_weights_as_torch_stores_them(torch, tmp_path, wrap, prefix):
    tensors = weights()
    state = {f"{prefix}{key}": torch.from_numpy(value).to(torch.bfloat16) for key, value in tensors.items()}
    state[f"{prefix}bn1.num_batches_tracked"] = torch.tensor(7)
    torch.save(wrap(state), tmp_path / "net.pth")
    source = read_from_file(tmp_path / "net.pth")
    assert source.architecture == NAME
    assert source.tensors.keys() == tensors.keys()
    for key, value in source.tensors.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, tensors[key], rtol=1e-2)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_torch_file_is_not_run(torch, tmp_path):
    torch.save({"state_dict": {}, "more": Malicious(str(tmp_path / "made"))}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="holds code besides arrays, which is not run"):
        read_from_file(tmp_path / "net.pth")
    assert not (tmp_path / "made").exists()


def test_a_damaged_torch_file_is_one_sentence(torch, tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"a": torch.ones(100)}, path)
    for damaged in (path.read_bytes()[:-200], b"", b"these are not weights"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read as weights alone"):
            read_from_file(path)


@pytest.mark.parametrize("stored", [[1, 2], {"epoch": 3, "rate": 0.1}])
def test_a_torch_file_without_weights_is_one_sentence(torch, tmp_path, stored):
    torch.save(stored, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net\.pth holds no state_dict, neither by itself nor under state_dict_ema"):
        read_from_file(tmp_path / "net.pth")


def test_every_tag_that_is_offered_is_one_of_timms(timm):
    from cxr_jax.models.registry import ARCHITECTURES

    offered = {f"{name}.{tag}" for name, entry in ARCHITECTURES.items() for tag in entry.weights}
    assert offered <= set(timm.list_pretrained())


def test_sizes_and_normalisation_are_those_of_the_preferred_weights(timm):
    from cxr_jax.models.registry import ARCHITECTURES

    for name, entry in ARCHITECTURES.items():
        if entry.weights:
            config = timm.get_pretrained_cfg(f"{name}.{entry.weights[0]}")
            assert (config.mean, config.std) == (entry.mean, entry.std), name
            assert config.input_size == (3, entry.image_size, entry.image_size)
            assert (config.test_input_size or config.input_size)[-1] == entry.evaluation_size, name


def test_published_weights_are_read_with_what_is_known_of_them(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(weights("mobilenetv2_050", classes=1000), path, {"format": "pt"})
    source = read_published(path, "mobilenetv2_050.lamb_in1k", "https://hub, 9 bytes, sha256 0a")
    assert source.metadata() == {
        "architecture": "mobilenetv2_050",
        "image_size": "224",
        "mean": json.dumps([0.485, 0.456, 0.406]),
        "std": json.dumps([0.229, 0.224, 0.225]),
        "interpolation": "bicubic",
        "source": "timm's mobilenetv2_050.lamb_in1k, https://hub, 9 bytes, sha256 0a",
        "license": "apache-2.0",
        "naming": "timm",
    }


def test_what_is_known_of_published_weights_is_what_timm_says(timm):
    from cxr_jax.models.registry import ARCHITECTURES

    for name, entry in ARCHITECTURES.items():
        for tag in entry.weights:
            config = timm.get_pretrained_cfg(f"{name}.{tag}")
            assert (config.mean, config.std, config.interpolation) == (entry.mean, entry.std, entry.interpolation), tag
            assert config.input_size == (3, entry.image_size, entry.image_size)
            assert config.license == PUBLISHED_LICENSE
            assert config.hf_hub_id == f"{PUBLISHER}/{name}.{tag}"


def test_real_weights_are_the_tensors_that_timm_loads(timm, torch, real_weights):
    theirs = timm.create_model("mobilenetv2_100", num_classes=0, checkpoint_path=str(real_weights)).state_dict()
    ours = read_from_file(real_weights).tensors
    assert ours.keys() == {name for name in theirs if not name.endswith("num_batches_tracked")}
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name].numpy())
