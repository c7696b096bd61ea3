"""What a person is told while a generator trains."""

import dataclasses
import io

import pytest
from rich.console import Console

from cxr_jax.config.schema import Config, TrainingConfig
from cxr_jax.reporting.synthesis import EPOCHS_WITHOUT_A_CHANCE, SynthesisObserver
from cxr_jax.synthesis.run import SynthesisPlan
from cxr_jax.terminal import Terminal
from cxr_jax.training.precision import Activations

BEATEN = {"discriminator_loss": 0.01, "generator_loss": 8.0, "called_real": 1.0, "made_called_real": 0.0}
MATCHED = {"discriminator_loss": 0.6, "generator_loss": 4.0, "called_real": 0.9, "made_called_real": 0.1}
WARNING = "the generator may learn nothing"


@pytest.fixture
def printed(tmp_path):
    """A function that shows epochs of one step each, and returns what was printed."""

    def show(epochs):
        console = Console(file=io.StringIO(), width=120)
        config = dataclasses.replace(Config(), training=TrainingConfig(epochs=len(epochs)))
        with SynthesisObserver(Terminal(console=console)) as observer:
            observer.on_start(SynthesisPlan(config, [], 1, Activations("float32", False, "", "")), 0)
            for number, line in enumerate(epochs, start=1):
                observer.on_train(line)
                observer.on_epoch(number, tmp_path / "grid.png")
        return " ".join(console.file.getvalue().split())

    return show


def test_a_discriminator_that_tells_every_image_for_ten_epochs_is_said_once(printed):
    text = printed([BEATEN] * (2 * EPOCHS_WITHOUT_A_CHANCE))
    assert text.count(WARNING) == 1
    assert "training.batch_size" in text
    before = text.split(WARNING)[0]
    assert f"epoch {EPOCHS_WITHOUT_A_CHANCE} of" in before
    assert f"epoch {EPOCHS_WITHOUT_A_CHANCE + 1} of" not in before


def test_a_generator_that_catches_up_in_time_is_left_alone(printed):
    """A generator of 64 pixels had no chance in its second to ninth epoch, and then did."""
    assert WARNING not in printed([*([BEATEN] * (EPOCHS_WITHOUT_A_CHANCE - 1)), MATCHED] * 2)
