"""Options that bear on nothing in the company of others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cxr_jax.config.effect import notes, refuse_options_of_several, without_effect
from cxr_jax.config.loading import load_config, load_with_options
from cxr_jax.config.schema import (
    AugmentationConfig,
    Config,
    DataConfig,
    OptimizerConfig,
    PhaseConfig,
    ProbeConfig,
    ScheduleConfig,
    TrainingConfig,
)
from cxr_jax.errors import EXIT_USAGE, UserError


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """A command without options of its own."""


PHASES = """
[[phases]]
name = "head"
epochs = 10
batch_norm = "frozen"
[phases.optimizer]
momentum = 0.0
[[phases]]
name = "all"
[phases.optimizer]
learning_rate = 0.001
"""


@pytest.mark.parametrize(
    ("toml", "options", "sentence"),
    [
        (
            PHASES,
            ("--training.epochs", "1"),
            "--training.epochs has no effect, because every phase has epochs of its own: use --phases.head.epochs or "
            "--phases.all.epochs",
        ),
        (
            PHASES,
            ("--optimizer.learning-rate=0.5",),
            "--optimizer.learning-rate has no effect, because every phase has its own optimizer: use "
            "--phases.head.optimizer.learning-rate or --phases.all.optimizer.learning-rate",
        ),
        (
            PHASES,
            ("--phases.0.optimizer.nesterov",),
            "--phases.head.optimizer.nesterov has no effect, because phases.head.optimizer.momentum is 0",
        ),
        ("", ("--optimizer.no-nesterov", "--optimizer.momentum", "0"), "because optimizer.momentum is 0"),
        ("", ("--optimizer.weight_decay", "0", "--optimizer.decayed", "all"), "because optimizer.weight_decay is 0"),
        ("", ("--schedule.final-fraction", "0.1"), 'schedule.kind is "constant"; choose "cosine" or "linear"'),
        ("", ("--data.validation", "official", "--data.split-seed", "1"), "which draws nothing at random"),
        ("", ("--data.validation-fraction", "0.2", "--data.validation", "official"), "which has its own images"),
        ("", ("--data.reduced-size", "32"), 'data.balancing is "none"; it counts where that is "reduced"'),
        ("", ("--data.synthetic", "x"), 'data.balancing is "none"; it counts where that is "dcgan"'),
        ("", ("--synthesis.channels", "8"), 'synthesis.generator is "none"; it counts where that is "dcgan"'),
        (
            '[data]\nimage_size = 64\n[synthesis]\ngenerator = "dcgan"',
            ("--validation.patience", "2"),
            'synthesis.generator is "dcgan", and no network that tells classes apart is trained',
        ),
        (
            "",
            ("--operating-point.cost-ratio", "2"),
            'it counts where that is "cost_ratio"',
        ),
    ],
)
def test_an_option_without_effect_is_refused_with_the_one_that_has(tmp_path, toml, options, sentence):
    path = tmp_path / "c.toml"
    path.write_text(toml)
    with pytest.raises(UserError) as refused:
        load_with_options(path, options, NoOptions, prog="x")
    assert sentence in str(refused.value)
    assert refused.value.code == EXIT_USAGE


@pytest.mark.parametrize(
    ("toml", "options"),
    [
        (PHASES, ("--phases.0.epochs", "1")),
        # the second phase takes these from the sections
        (PHASES, ("--training.batch-norm", "frozen", "--schedule.kind", "cosine", "--schedule.final-fraction", "0.1")),
        ("", ("--training.epochs", "1", "--optimizer.nesterov")),
        ("", ("--operating-point.rule", "sensitivity", "--operating-point.target-sensitivity", "0.9")),
        ("", ("--data.validation", "numbered", "--data.validation-fraction", "0.2")),
    ],
)
def test_options_that_have_an_effect_are_taken(tmp_path, toml, options):
    path = tmp_path / "c.toml"
    path.write_text(toml)
    assert load_with_options(path, options, NoOptions, prog="x").config != load_config(path)


def test_options_of_several_processes_are_refused_where_one_trains():
    with pytest.raises(UserError, match=r"--parallel.rank has no effect, because one process trains alone: say"):
        refuse_options_of_several(["optimizer.momentum", "parallel.rank"])
    refuse_options_of_several(["parallel.devices", "parallel.backend"])


def test_a_file_is_told_of_what_it_sets_in_vain():
    whole = PhaseConfig(
        "all", 3, (), "train", OptimizerConfig(), ScheduleConfig(final_fraction=0.5), AugmentationConfig()
    )
    config = Config(
        data=DataConfig(validation="official", split_seed=3), training=TrainingConfig(epochs=7), phases=(whole,)
    )
    assert [note.split()[0] for note in notes(config)] == [
        "training.epochs",
        "phases.all.schedule.final_fraction",
        "data.split_seed",
    ]
    assert "optimizer.momentum" in without_effect(config)
    assert notes(Config()) == []


def test_the_shipped_configs_set_nothing_in_vain():
    folder = Path(__file__).parents[2] / "configs"
    assert {path.name: notes(load_config(path)) for path in folder.glob("*.toml") if notes(load_config(path))} == {}


def test_what_only_training_looks_at_has_no_effect_on_a_probe_and_is_told_in_one_sentence():
    trained = Config(optimizer=OptimizerConfig(0.5), phases=(PhaseConfig("head", 3),))
    assert {"probe.features", "probe.strengths", "probe.folds"} <= without_effect(trained).keys()
    probed = dataclasses.replace(trained, probe=ProbeConfig("svm"))
    idle = without_effect(probed)
    assert {"optimizer.learning_rate", "training.epochs", "model.dropout", "phases.head.epochs"} <= idle.keys()
    of_use = {"model.name", "training.seed", "loss.class_weights", "probe.classifier", "probe.folds"}
    assert not of_use & idle.keys()
    assert "operating_point.target_sensitivity" in idle
    (note,) = notes(probed)
    assert note.startswith("what [optimizer], [phases] say of training has no effect, because probe.classifier is")
