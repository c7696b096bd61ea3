import hashlib
import json
import os
import sys
import types

import numpy as np
import pytest
from drawn import drawn_tensors
from safetensors.numpy import save_file

from cxr_jax.errors import UserError
from cxr_jax.models.registry import model_shapes
from cxr_jax.porting.requirements import import_timm
from cxr_jax.porting.sources import fetch_from_timm, read_from_file, require_intact

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


def test_names_that_cannot_be_fetched_are_told_before_anything_is(monkeypatch):
    with pytest.raises(UserError, match="did you mean tf_efficientnetv2_s"):
        fetch_from_timm("efficientnetv2_s")
    with pytest.raises(UserError, match="no published weights of mobilenetv2_tiny; give a file"):
        fetch_from_timm("mobilenetv2_tiny")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="porting mobilenetv2_050 needs torch"):
        fetch_from_timm("mobilenetv2_050")


def test_an_unknown_tag_meets_the_known_ones(timm):
    with pytest.raises(UserError, match=r"timm has no weights called tf_efficientnetv2_s\.x; choose one of .*_s\.in1k"):
        fetch_from_timm("tf_efficientnetv2_s.x")


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


def test_without_a_network_the_way_round_it_is_told(timm, monkeypatch):
    def offline(name, pretrained):
        raise OSError("could not reach the host\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError) as raised:
        fetch_from_timm("mobilenetv2_050")
    assert str(raised.value) == (
        "timm could not fetch mobilenetv2_050.lamb_in1k (could not reach the host at all); download its file elsewhere "
        "and give the path in place of the name"
    )


def test_weights_fetched_through_timm(timm, torch, monkeypatch, tmp_path):
    tensors = weights("mobilenetv2_050", classes=1000)
    counters = {
        key.replace("weight", "num_batches_tracked"): torch.tensor(1)
        for key in tensors
        if ".bn" in f".{key}" and key.endswith("weight")
    }
    torch.save({key: torch.from_numpy(value) for key, value in tensors.items()} | counters, tmp_path / "net.pth")
    create = timm.create_model

    def from_file(name, pretrained):
        return create(name, pretrained=pretrained, pretrained_cfg_overlay={"file": str(tmp_path / "net.pth")})

    monkeypatch.setattr(timm, "create_model", from_file)
    source = fetch_from_timm("mobilenetv2_050")
    assert source.tensors.keys() == tensors.keys()
    np.testing.assert_array_equal(source.tensors["conv_head.weight"], tensors["conv_head.weight"])
    assert source.metadata() == {
        "architecture": "mobilenetv2_050",
        "image_size": "224",
        "mean": json.dumps([0.485, 0.456, 0.406]),
        "std": json.dumps([0.229, 0.224, 0.225]),
        "interpolation": "bicubic",
        "source": f"timm {timm.__version__}, timm/mobilenetv2_050.lamb_in1k",
        "license": "apache-2.0",
        "naming": "timm",
    }


def test_a_download_is_held_to_the_sha256_that_the_hub_calls_it_by(tmp_path, monkeypatch):
    content = b"weights" * 1000
    blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
    snapshot = tmp_path / "snapshots" / "model.safetensors"
    for path in (blob, snapshot):
        path.parent.mkdir()
    blob.write_bytes(content)
    snapshot.symlink_to(blob)
    hub = types.SimpleNamespace(
        try_to_load_from_cache=lambda repository, name: str(snapshot) if name == snapshot.name else None
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    require_intact("timm/net")
    blob.write_bytes(content[:-1] + b"S")
    with pytest.raises(UserError, match=rf"the download of timm/net is damaged.*remove {blob}"):
        require_intact("timm/net")
    require_intact("")
    # a small file is named by another hash, and a cache without links by no hash: nothing is known of them
    snapshot.unlink()
    snapshot.write_bytes(content)
    require_intact("timm/net")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    require_intact("timm/net")
