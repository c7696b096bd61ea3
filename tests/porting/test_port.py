import sys

import numpy as np
import pytest
from drawn import drawn_tensors
from safetensors.numpy import load_file

from cxr_jax.errors import UserError
from cxr_jax.models.pretrained import CHECKSUM, checksum, load_weights
from cxr_jax.models.registry import build_model, model_shapes
from cxr_jax.models.state import split_model
from cxr_jax.porting import port as porting
from cxr_jax.porting.port import Source, find_source, port
from cxr_jax.porting.requirements import import_timm
from cxr_jax.porting.sources import SourceWeights

NAME = "efficientnetv2_tiny"


def source(name=NAME, classes=5):
    _, params, batch_stats = model_shapes(name, classes=classes)
    tensors = {key: value.astype(np.float32) for key, value in drawn_tensors(params | batch_stats).items()}
    return SourceWeights(tensors, name, 300, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", "drawn", "apache-2.0")


def test_what_is_ported_can_be_loaded(tmp_path):
    weights, out = source(), tmp_path / "folder" / "net.safetensors"
    ported = port(weights, out, classes=5)
    _, params, batch_stats = split_model(build_model(NAME, classes=5))
    loaded = load_weights(out, NAME, params, batch_stats)
    assert loaded.fresh == ()
    assert loaded.image_statistics() == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert loaded.metadata == weights.metadata() | {CHECKSUM: checksum(weights.tensors)}
    np.testing.assert_array_equal(loaded.params["classifier.kernel"], weights.tensors["classifier.weight"].T)
    assert load_file(out).keys() == weights.tensors.keys()
    assert ported.dropped_classes is None
    assert ported.parameters == sum(value.size for value in params.values())
    assert ported.size == out.stat().st_size


def test_a_classifier_of_other_classes_is_left_out_and_told(tmp_path):
    out = tmp_path / "net.safetensors"
    ported = port(source(classes=5), out)
    assert (ported.dropped_classes, ported.weights.classes) == (5, None)
    _, params, batch_stats = split_model(build_model(NAME, classes=2))
    assert load_weights(out, NAME, params, batch_stats).fresh == ("classifier.bias", "classifier.kernel")
    assert ported.parameters == sum(value.size for name, value in params.items() if "classifier" not in name)


def test_weights_without_a_classifier(tmp_path):
    ported = port(source().without_classifier(), tmp_path / "net.safetensors")
    assert ported.dropped_classes is None


def test_weights_that_do_not_fit_write_nothing(tmp_path):
    weights = source()
    weights.tensors["extra"] = weights.tensors.pop("bn1.weight")
    with pytest.raises(
        UserError, match=r"drawn does not fit efficientnetv2_tiny: bn1\.weight is missing; extra is unkn"
    ):
        port(weights, tmp_path / "net.safetensors", classes=5)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path):
    out = tmp_path / "net.safetensors"
    out.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        port(source(), out)
    assert out.read_text() == "mine"
    port(source(), out, replace=True)
    assert len(load_file(out)) > 0


def test_the_file_must_be_named_for_what_it_is(tmp_path):
    with pytest.raises(UserError, match=r"must be called something\.safetensors"):
        port(source(), tmp_path / "net.pth")


def test_weights_that_timm_reads_differently_write_nothing(tmp_path, monkeypatch):
    for difference in (0.3, float("nan")):
        monkeypatch.setattr(porting, "difference_from_original", lambda *_, value=difference: value)
        with pytest.raises(UserError, match=r"differs from timm's by .* more than 1e-06; nothing was written"):
            port(source(), tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_without_timm_nothing_is_compared(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert port(source("mobilenetv2_050"), tmp_path / "net.safetensors").difference is None


@pytest.mark.parametrize("classes", [5, 1000])
def test_a_port_is_compared_with_timm(tmp_path, classes):
    try:
        import_timm("this test")
    except UserError as error:
        pytest.skip(str(error))
    ported = port(source("mobilenetv2_050"), tmp_path / "net.safetensors", classes=classes)
    assert 0 < ported.difference < 1e-12


def test_names_and_files_are_told_apart(tmp_path):
    file = tmp_path / "tf_efficientnetv2_s"
    file.touch()
    assert find_source(str(file)) == Source(file)
    assert find_source("tf_efficientnetv2_s.in1k") == Source(None, "tf_efficientnetv2_s.in1k")
    assert find_source("tf_efficientnetv2_s") == Source(None, "tf_efficientnetv2_s.in21k_ft_in1k")
    for missing in (tmp_path / "net", "net.safetensors", "net.pth"):
        with pytest.raises(UserError, match="there is no file"):
            find_source(str(missing))
