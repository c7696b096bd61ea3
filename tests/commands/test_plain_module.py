"""A network that knows nothing of stages, features or native kernels goes through every command."""

import contextlib
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cxr_jax.cli import main as cli
from cxr_jax.commands import train
from cxr_jax.errors import UserError
from cxr_jax.models import registry
from cxr_jax.training.optimizer import layer_shares
from cxr_jax.training.precision import choose_precision

NAME = "plain"


class Plain(nnx.Module):
    """Mean colours of 4 x 4 fields, and two layers."""

    def __init__(self, *, classes, generator, **_):
        draw = lambda *shape: jnp.asarray(generator.standard_normal(shape, np.float32) * np.float32(0.3))  # noqa: E731
        self.hidden, self.classifier = nnx.Param(draw(48, 16)), nnx.Param(draw(16, classes))

    def __call__(self, x, *, train=False, keys=None, axis_name=None, frozen_stages=(), native=False):
        del train, keys, axis_name, frozen_stages
        if native:
            raise AssertionError("native kernels were asked for")
        fields = x.reshape(x.shape[0], 4, x.shape[1] // 4, 4, x.shape[2] // 4, 3).mean((2, 4))
        hidden = jax.nn.relu(fields.reshape(x.shape[0], 48) @ self.hidden[...].astype(x.dtype))
        return hidden @ self.classifier[...].astype(x.dtype)


@pytest.fixture
def plain(monkeypatch):
    build = lambda **options: Plain(**options)  # noqa: E731
    entry = dataclasses.replace(registry.ARCHITECTURES["mobilenetv2_tiny"], build=build, weights=())
    monkeypatch.setitem(registry.ARCHITECTURES, NAME, entry)


@pytest.fixture
def run(plain, prepared_phantoms, config_file, tmp_path, native_kernels):
    """A run of one epoch on one device."""
    out = tmp_path / "run"
    alone = ["--model.name", NAME, "--parallel.devices", "1", "--training.epochs", "1"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        train.main([str(config_file), *alone, "--out", str(out)])
    (tmp_path / "printed").write_text(printed.getvalue())
    return out


def test_it_trains_and_predicts_and_no_native_kernels_are_claimed(run, phantom_source, capsys):
    printed = (run.parent / "printed").read_text()
    assert "Training ended" in printed
    assert "native" not in printed
    film = str(next((phantom_source / "test").rglob("*.jpeg")))
    assert cli(["predict", str(run), film]) == 0
    assert film in capsys.readouterr().out


@pytest.mark.parametrize("command", [["explain", "RUN", "FILM"], ["explain", "RUN", "--check"]])
def test_heat_maps_of_it_are_refused_in_one_sentence(run, phantom_source, command, capsys):
    film = str(next((phantom_source / "test").rglob("*.jpeg")))
    capsys.readouterr()
    assert cli([{"RUN": str(run), "FILM": film}.get(word, word) for word in command]) == 1
    assert "Plain has no stages, so that no heat map can be made of it" in capsys.readouterr().err


def test_predict_refuses_its_heat_maps_before_it_predicts(run, phantom_source, tmp_path, capsys):
    film = str(next((phantom_source / "test").rglob("*.jpeg")))
    capsys.readouterr()
    assert cli(["predict", str(run), film, "--maps", str(tmp_path / "maps"), "--csv", str(tmp_path / "t.csv")]) == 1
    assert "Plain has no stages" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists() and not (tmp_path / "t.csv").exists()


def test_its_head_can_be_trained_alone(plain, prepared_phantoms, config_file, tmp_path, capsys):
    head = tmp_path / "head.toml"
    phase = '[[phases]]\nname = "head"\nepochs = 1\ntrainable = ["classifier"]\nbatch_norm = "frozen"\n'
    head.write_text(config_file.read_text().replace("mobilenetv2_tiny", NAME) + phase)
    train.main([str(head), "--out", str(tmp_path / "run")])
    assert "Training ended" in capsys.readouterr().out


def test_rates_by_stage_need_stages():
    with pytest.raises(UserError, match=r"hidden belongs to no stage .*: set optimizer\.layer_decay to 1"):
        layer_shares(["hidden", "classifier"], 0.9, {})


def test_bfloat16_is_not_chosen_for_it_on_a_cpu(native_kernels):
    cpu = jax.devices("cpu")[:1]
    assert choose_precision("auto", cpu, "jit", NAME, natively=False).precision == "float32"
    assert choose_precision("auto", cpu, "jit", "mobilenetv2_100").precision == "bf16"
