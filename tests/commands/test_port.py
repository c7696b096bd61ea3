import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cxr_jax.cli import main as cli
from cxr_jax.commands import port
from cxr_jax.config.schema import ModelConfig
from cxr_jax.errors import EXIT_MISTAKE, EXIT_USAGE, UserError
from cxr_jax.inference.restore import restore_run
from cxr_jax.models.original_names import expected_tensors
from cxr_jax.models.registry import model_shapes
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.network import build_network

NAME = "mobilenetv2_tiny"


@pytest.fixture
def weights(tmp_path):
    """A file of weights with a classifier of 1000 classes, as timm would store it."""
    _, params, batch_stats = model_shapes(NAME, classes=1000)
    path = tmp_path / "timm.safetensors"
    shapes = expected_tensors(params | batch_stats)
    save_file({name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}, path)
    return path


def test_a_file_is_ported_and_what_was_done_told(weights, tmp_path, capsys):
    out = tmp_path / "ours.safetensors"
    port.main([str(weights), str(out), "--license", "mit"])
    printed = capsys.readouterr().out
    assert f"{NAME} from timm.safetensors, sha256 " in printed
    assert "(license: mit)" in printed
    assert "images: 224 px, bicubic, mean 0.485 0.456 0.406, std 0.229 0.224 0.225" in printed
    assert "87,736 parameters; classifier of 1,000 classes kept" in printed
    assert f"--model.name {NAME} --model.weights {out}" in printed
    assert load_file(out).keys() == load_file(weights).keys()


def test_a_classifier_that_is_left_out_is_named(weights, tmp_path, capsys):
    port.main([str(weights), str(tmp_path / "ours.safetensors"), "--classes", "2"])
    printed = capsys.readouterr().out
    assert "classifier.weight and classifier.bias left out, because they have 1,000 classes" in printed
    port.main([str(tmp_path / "ours.safetensors"), str(tmp_path / "again.safetensors")])
    assert "no classifier in the source" in capsys.readouterr().out


def test_an_existing_file_is_kept_unless_told(weights, tmp_path, capsys):
    before = weights.read_bytes()
    assert cli(["port", NAME, str(weights)]) == EXIT_MISTAKE
    assert "exists already" in capsys.readouterr().err
    assert weights.read_bytes() == before
    port.main([str(weights), str(weights), "--replace"])
    assert weights.read_bytes() != before


def test_mistakes_are_one_sentence(tmp_path, capsys):
    assert cli(["port", str(tmp_path / "none.pth"), str(tmp_path / "out.safetensors")]) == EXIT_MISTAKE
    assert "there is no file" in capsys.readouterr().err
    with pytest.raises(UserError) as raised:
        port.main(["mobilenetv2_100"])
    assert raised.value.code == EXIT_USAGE


def test_the_comparison_with_timm_is_told(weights, tmp_path, monkeypatch, capsys):
    from cxr_jax.porting import port as porting

    monkeypatch.setattr(porting, "difference_from_original", lambda *_: 2.5e-7)
    port.main([str(weights), str(tmp_path / "ours.safetensors")])
    assert "same output as timm's own network, to 2.5e-07 in relative norm" in capsys.readouterr().out


def test_the_layers_of_a_run_begin_another_network_of_other_classes(evaluated_run, tmp_path, capsys):
    """Its classifier of two classes is left out, and what is read again is what the run had, bit by bit."""
    out = tmp_path / "lent.safetensors"
    port.main([str(evaluated_run), str(out)])
    printed = capsys.readouterr().out
    assert f"{NAME} from the run {evaluated_run.name}, step " in printed
    assert "left out, because they have 2 classes" in printed
    trained = restore_run(RunFolder(evaluated_run))
    network = build_network(ModelConfig(NAME, weights=str(out), transition=8), seed=1, classes=5)
    assert network.mean == pytest.approx(trained.mean)
    behind = {name for name in network.params if name.startswith(("classifier.", "transition."))}
    assert set(network.fresh) == behind
    found, expected = network.params | network.batch_stats, trained.params | trained.batch_stats
    lent = [name for name in expected if not name.startswith("classifier.")]
    assert set(found) - behind == set(lent) | {"transition.norm.mean", "transition.norm.var"}
    assert all(np.array_equal(found[name], expected[name]) for name in lent)
