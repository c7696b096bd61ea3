"""The experiments in configs/: each is valid, says how to run it, and holds the values of its study."""

import dataclasses
import math
import re
import tomllib
from pathlib import Path

import pytest

from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import DataConfig, ModelConfig, OptimizerConfig, TrainingConfig, ValidationConfig
from cxr_jax.models.network import CLASSIFIER, stage_layers_of, stage_of
from cxr_jax.models.registry import ARCHITECTURES, model_shapes
from cxr_jax.models.state import merge_model
from cxr_jax.sweeps.sweep import read_sweep
from cxr_jax.training.optimizer import partition

CONFIGS = Path(__file__).parents[2] / "configs"
BARNETT = {
    f"mobilenetv2_{task}{variant}": (weights, validation)
    for task, weights in (("scratch", ""), ("transfer", "mobilenetv2_100.imagenet.safetensors"))
    for variant, validation in (("", "official"), ("_honest", "grouped"))
}


def test_the_configs_are_there():
    assert {*BARNETT, "quickstart"} <= {path.stem for path in CONFIGS.glob("*.toml")}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_is_valid_and_opens_with_its_command(path):
    config = load_config(path)
    assert config.model.name in ARCHITECTURES
    text = path.read_text()
    header = text[: text.index("\n\n")].splitlines()
    assert all(line.startswith("#") for line in header)
    for entry in ("Command", "Hardware", "Expected result"):
        assert any(re.match(rf"# {entry}: +\S", line) for line in header), entry
    (command,) = (line for line in header if line.startswith("# Command:"))
    name = "probe" if config.probe.is_asked_for else "synthesize" if config.synthesis.is_asked_for else "train"
    assert f"cxr-jax {name} configs/{path.name} --out runs/" in command


def test_the_configs_of_stored_results_are_read_as_they_were_trained():
    found = (CONFIGS.parent / "results").rglob("config.toml")
    # the config of an ensemble trains nothing
    paths = [path for path in found if not (path.parent / "ensemble.json").is_file()]
    decays = set()
    for path in paths:
        training = tomllib.loads(path.read_text())["training"]
        decays.add(training.get("average_decay", training.get("ema_decay")))
        assert load_config(path).training.ema_decay == training.get("average_decay", training.get("ema_decay", 0.0))
    assert len(paths) > 20
    assert decays > {0.99}


def test_the_first_try_stands_for_the_average_at_the_end_of_its_training():
    """The best of its 92 validation images was one of its first epochs, and called 65 % of them rightly."""
    config = load_config(CONFIGS / "quickstart.toml")
    assert config.validation == ValidationConfig(monitor="roc_auc", checkpoint="last")
    assert config.training.ema_decay == 0.9


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_phase_trains_layers_that_its_network_has(path):
    config = load_config(path)
    _, params, _ = model_shapes(config.model.name, classes=2)
    for phase in config.resolved_phases():
        trained, _ = partition(params, phase)
        assert trained


@pytest.mark.parametrize("name", BARNETT)
def test_barnett_s_values(name):
    weights, validation = BARNETT[name]
    config = load_config(CONFIGS / f"{name}.toml")
    assert config.data == DataConfig(validation=validation, balancing="barnett")
    assert config.model == ModelConfig(name="mobilenetv2_100", weights=weights)
    assert config.optimizer == OptimizerConfig(learning_rate=0.01, momentum=0.9, weight_decay=1e-4, decayed="all")
    assert config.training == TrainingConfig(epochs=2, batch_size=128)
    checkpoint = "last" if validation == "official" else "best"
    assert config.validation == ValidationConfig(every_iterations=10, patience=3, checkpoint=checkpoint)
    assert not config.augmentation.is_random
    assert config.phases == ()
    assert config.schedule.kind == "constant"
    assert config.loss == dataclasses.replace(config.loss, class_weights="none", label_smoothing=0.0)


def stage_sizes(name):
    """How many parameters each stage of a network has, from input to output, and the layers of each stage."""
    graphdef, params, batch_stats = model_shapes(name, classes=2)
    stages = stage_layers_of(merge_model(graphdef, params, batch_stats))
    sizes = dict.fromkeys((stage for stage in stages if stage != CLASSIFIER), 0)
    for parameter, value in params.items():
        if (stage := stage_of(parameter, stages)) in sizes:
            sizes[stage] += math.prod(value.shape)
    return sizes, stages


def test_the_deeper_layers_of_the_study_of_networks_follow_its_rule():
    """The fewest last stages that hold as large a share of all stages' parameters as those of MobileNetV2."""
    base, *variants = read_sweep(CONFIGS / "sweeps/networks.toml").variants
    sizes, stages = stage_sizes(base.config.model.name)
    trained = base.config.phases[1].trainable
    share = sum(size for stage, size in sizes.items() if set(stages[stage]) <= set(trained)) / sum(sizes.values())
    assert share == pytest.approx(0.892, abs=0.001)
    assert len(variants) == 5
    for variant in variants:
        sizes, stages = stage_sizes(variant.config.model.name)
        expected, held = [], 0
        for stage in reversed(sizes):
            if held < share * sum(sizes.values()):
                expected.append(stage)
                held += sizes[stage]
        layers = [layer for stage in (*reversed(expected), CLASSIFIER) for layer in stages[stage]]
        assert list(variant.config.phases[1].trainable) == layers, variant.name
        architecture = ARCHITECTURES[variant.config.model.name]
        assert variant.config.data.image_size == architecture.image_size
        blur = 2 * architecture.image_size / 224
        assert variant.config.phases[1].augmentation.blur == pytest.approx(blur, abs=0.005)
