"""Every network is evaluated, reported, used, explained and exported by the same commands, with no line of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_jax.cli import main as cli
from cxr_jax.commands import evaluate
from cxr_jax.config.schema import Config, DataConfig, ModelConfig
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.run_folders import write_origin
from cxr_jax.data.split_loading import load_split
from cxr_jax.devices import choose_devices, names_of
from cxr_jax.models.registry import ARCHITECTURES
from cxr_jax.training.denoising import with_trained_denoiser
from cxr_jax.training.network import build_network, describe
from cxr_jax.training.probe import save_network

TINY = [name for name in ARCHITECTURES if name.endswith("_tiny")]

QUICK = ("squeezenet_tiny", "densenet_tiny", "stephen2019_tiny")
"""No BatchNorm and a classifier of pixels, concatenation, a fully connected layer: the others are like these."""


@pytest.fixture
def run(request, prepared_phantoms, tmp_path, undrawn_figures):
    """An evaluated run of a network that nobody has trained; other tests train them."""
    name, _, clearer = request.param.partition(" ")
    side = 75 if name.startswith("inception") else 32
    data = DataConfig("phantoms", image_size=side, validation_fraction=0.2, clarify="clahe" if clearer else "none")
    config = Config(data=data, model=ModelConfig(name, denoiser=4 if clearer else 0))
    network, prepared = build_network(config.model, seed=0), PreparedData.open("phantoms")
    if clearer:
        train_set = load_split(prepared, data, "train")
        network, _ = with_trained_denoiser(network, train_set, 0, steps=5)
    stored = write_origin(tmp_path / "run", config, describe(config, network), prepared, names_of(choose_devices(1)))
    save_network(stored, network, "loss", {"loss": 1.0, "accuracy": 0.5, "roc_auc": 0.5}, seconds=1.0)
    evaluate.main([str(stored.path)])
    return stored


@pytest.mark.parametrize(
    "run",
    [
        *(pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in TINY),
        pytest.param("mobilenetv1_tiny clarified", marks=pytest.mark.slow, id="clarified and denoised"),
    ],
    indirect=True,
)
def test_it_goes_through_all_commands(run, phantom_source, tmp_path, capsys):
    architecture = json.loads(run.network.read_text())["architecture"]
    assert architecture in run.report.read_text()
    assert json.loads(run.quality.read_text())["splits"]["test"]["images"] == 24

    films = tmp_path / "films"
    films.mkdir()
    shutil.copy(next((phantom_source / "test").rglob("*.jpeg")), films / "film.jpeg")
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(films / "white.png")
    bundle, answers = str(tmp_path / "bundle"), {}
    assert cli(["export", str(run.path), bundle]) == 0
    for network in (str(run.path), bundle):
        capsys.readouterr()
        assert cli(["predict", network, str(films), "--json"]) == 0
        answers[network] = {Path(row["file"]).name: row for row in json.loads(capsys.readouterr().out)}
    ours, exported = answers[str(run.path)], answers[bundle]
    assert set(ours) == {"film.jpeg", "white.png"}
    for name, row in ours.items():
        assert row["probability"] == pytest.approx(exported[name]["probability"], abs=1e-5)
    assert ours["white.png"]["warnings"], "a white picture is unlike all of training"

    assert cli(["explain", str(run.path), str(films / "film.jpeg")]) == 0
    assert list(run.explanations.glob("*.png"))
