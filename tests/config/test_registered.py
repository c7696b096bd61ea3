"""The commands of registered studies ask for what the studies say, of configs that come with the program."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from cxr_jax.commands.crossval import Options
from cxr_jax.config.data import ReplayConfig
from cxr_jax.config.effect import refuse_without_effect
from cxr_jax.config.loading import load_config, load_with_options
from cxr_jax.config.shipped import find_config
from cxr_jax.models.registry import ARCHITECTURES
from cxr_jax.sweeps.folds import sweep_of_folds
from cxr_jax.sweeps.sweep import read_sweep

STUDY = (Path(__file__).parents[2] / "docs/registered/best.md").read_text()
RENAMED = {
    "mobilenetv2_best": "mobilenetv2_moderate_crops",
    "mobilenetv2_wide_crops": "mobilenetv2_best",
}
"""What configs are called now, by the names that they have in the study."""

COMMANDS = [shlex.split(line) for line in re.findall(r"^ *cxr-jax (.*)", STUDY, re.MULTILINE)]


@pytest.fixture(scope="module")
def arms():
    """The config that each arm trains on its first fold, and the options of its command, by the arm's name."""
    found = {}
    for command, config, *options in COMMANDS:
        if command == "crossval":
            path = find_config(RENAMED[config])
            given = load_with_options(path, options, Options, prog="", description="", tell=pytest.fail)
            trained = sweep_of_folds(path, given.config, given.options.folds).base.config
            refuse_without_effect(trained, given.changes)
            found[Path(given.options.out).name] = (trained, given.options)
    return found


def test_the_table_of_arms_names_those_of_the_commands(arms):
    table = re.findall(r"^\| `(\w+)` \| [^|]* \| `(\w+)`", STUDY, re.MULTILINE)
    # the last was added later, and stands at the end
    assert [*(name for name, _ in table), "b"] == [*arms]
    configs = [config for command, config, *_ in COMMANDS if command == "crossval"]
    assert [*(config for _, config in table), "mobilenetv2_wide_crops"] == configs
    assert all(options.folds == 5 for _, options in arms.values())
    assert all(config.training.seed == config.data.split_seed == 0 for config, _ in arms.values())


def test_arms_differ_from_the_first_in_what_the_table_says(arms):
    first, _ = arms["a"]
    augmentation = {name: value for name, value in dataclasses.asdict(first.augmentation).items() if value}
    assert augmentation == {
        "horizontal_flip": 0.5,
        "contrast": 0.3,
        "gain": 0.3,
        "crop": 0.08,
        "crop_aspect": pytest.approx(1 / 3),
    }
    assert (first.training.sampling, first.loss.class_weights, first.optimizer.layer_decay) == ("balanced", "none", 0.8)
    assert first.phases == () and first.training.ema_decay > 0
    assert (first.operating_point.rule, first.operating_point.target_sensitivity) == ("sensitivity", 0.975)
    lite0 = dataclasses.replace(
        first.model, name="tf_efficientnet_lite0", weights="tf_efficientnet_lite0.imagenet.safetensors"
    )
    assert arms["a_lite0"][0] == dataclasses.replace(first, model=lite0)
    assert ARCHITECTURES[lite0.name].image_size == first.data.image_size
    sharp = dataclasses.replace(first.optimizer, sharpness_radius=0.05)
    assert arms["d"][0] == dataclasses.replace(first, optimizer=sharp)
    looks = dataclasses.replace(first.model, flip_average=True, shift_average=0.04)
    config, options = arms["e"]
    assert config == dataclasses.replace(first, model=looks)
    # not trained again
    assert options.networks == arms["a"][1].out
    assert arms["b"][0] == dataclasses.replace(first, data=dataclasses.replace(first.data, crop="lungs"))
    control = arms["c"][0]
    assert control.operating_point == first.operating_point
    assert control.data == first.data


def test_the_ablation_changes_one_factor_at_a_time(arms):
    (name,) = [config for command, config, *_ in COMMANDS if command == "sweep"]
    sweep = read_sweep(find_config(name, sweep=True))
    assert sweep.seeds == (0, 1)  # cut from three, as the registration tells under Changes
    base, *variants = sweep.variants
    assert len(variants) == 5
    config = arms["a"][0]
    schedule = dataclasses.replace(config.schedule, warmup_iterations=base.config.schedule.warmup_iterations)
    assert base.config == dataclasses.replace(
        config, data=base.config.data, schedule=schedule, validation=base.config.validation
    )
    assert base.config.data.validation == "grouped"
    assert all(variant.config != base.config for variant in variants)


def test_learning_on_keeps_the_recipe_and_the_cut_of_the_network_that_it_begins_with():
    first, config = (load_config(find_config(name)) for name in ("mobilenetv2_moderate_crops", "mobilenetv2_continued"))
    deeper = first.phases[1]
    assert config.augmentation == deeper.augmentation
    assert (config.optimizer.learning_rate, config.schedule.kind) == (deeper.optimizer.learning_rate, "cosine")
    assert (config.loss, config.operating_point, config.validation) == (
        first.loss,
        first.operating_point,
        first.validation,
    )
    assert (config.model.name, config.model.weights, config.phases) == (first.model.name, "", ())
    assert config.data.replay == ReplayConfig(first.data.dataset, 0.5)
    # its validation images of the old data are then none that the first network learned from
    alone = dataclasses.replace(config.data, replay=ReplayConfig())
    assert alone.cut() == first.data.cut() and alone.image_size == first.data.image_size
    told = (Path(__file__).parents[2] / "docs/registered/continued.md").read_text()
    assert f"see every new film as often, {config.training.epochs} times" in told


def test_the_twin_is_the_same_recipe_on_another_network(arms):
    first = arms["a"][0]
    twin = load_with_options(
        find_config("efficientnetv2_s_best"), [], Options, prog="", description="", tell=pytest.fail
    ).config
    assert (twin.augmentation, twin.loss, twin.operating_point) == (
        first.augmentation,
        first.loss,
        first.operating_point,
    )
    assert (twin.training.epochs, twin.training.sampling) == (first.training.epochs, first.training.sampling)
    assert twin.data.image_size == ARCHITECTURES[twin.model.name].image_size
    # as many images are seen at each rate
    assert twin.optimizer.learning_rate / twin.training.batch_size == pytest.approx(
        first.optimizer.learning_rate / first.training.batch_size
    )
