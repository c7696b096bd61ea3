"""What stands in the terminal, or in a log, while a network is trained."""

import dataclasses
import io
import re
import time

import pytest
from rich.console import Console

from cxr_jax import terminal
from cxr_jax.config.schema import Config, PhaseConfig, ValidationConfig
from cxr_jax.reporting.live import TerminalObserver
from cxr_jax.terminal import Terminal
from cxr_jax.training.plan import Phase, Plan
from cxr_jax.training.precision import Activations
from cxr_jax.training.progress import Progress

VALIDATION = {"step": 5, "epoch": 0.5, "loss": 0.25, "accuracy": 0.875, "roc_auc": float("nan"), "best": True}


def plan_of(*phases, every=0, precision="float32", native_kernels=False, why="", note=""):
    """A plan of phases that are given as name, steps, and numbers trained and frozen."""
    config = Config()
    return Plan(
        config=dataclasses.replace(config, validation=ValidationConfig(every_iterations=every)),
        devices=[],
        phases=tuple(
            Phase(PhaseConfig(name), iterations, (), trained, frozen, None, None, (), False)
            for name, iterations, trained, frozen in phases
        ),
        batches_per_epoch=2,
        class_weights=(1.0, 1.0),
        activations=Activations(precision, native_kernels, why, note),
    )


def told(**plan):
    console = Console(file=io.StringIO(), width=60)
    observer = TerminalObserver(Terminal(console=console))
    observer.on_start(plan_of(("head", 10, 5000, 7), **plan), Progress())
    observer.close()
    return console.file.getvalue()


def test_phases_are_told():
    assert "Phase head: 10 steps, 5,000 parameters trained, 7 frozen\n" in told()


def test_how_activations_are_computed_is_told_unless_it_is_float32():
    assert "Activations in bf16, all else in float32" in told(precision="bf16")
    assert "Activations in bf16 by native kernels, all else" in told(precision="bf16", native_kernels=True)
    assert "Activations" not in told()


def test_a_precision_that_was_chosen_is_told_with_its_reason():
    why = "on AVX2 it is faster"
    assert f"Activations in float32: {why}\n" in told(why=why)
    told_of_kernels = " ".join(told(precision="bf16", native_kernels=True, why=why).split())
    assert f"Activations in bf16 by native kernels, all else in float32: {why}" in told_of_kernels


def test_a_note_on_activations_is_told_as_it_is():
    note = "Activations in float32 without native kernels, at about half the speed: a path [with] brackets"
    assert note in told(note=note)


def train_line(step, loss=0.5, phase="head"):
    return {"step": step, "epoch": step / 10, "phase": phase, "loss": loss, "images_per_second": 80.0}


@pytest.mark.parametrize("interactive", [True, False])
def test_compiling_and_then_steps_are_told_in_a_terminal_and_in_a_log(interactive, monkeypatch):
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.01)
    file = io.StringIO()
    console = Console(file=file, width=160, force_terminal=interactive)
    observer = TerminalObserver(Terminal(console=console))

    def wait_for(pattern):
        start, deadline = len(file.getvalue()), time.monotonic() + 120
        while not re.search(pattern, file.getvalue()[start:]):
            assert time.monotonic() < deadline, file.getvalue()[start:]
            time.sleep(0.01)

    observer.on_start(plan_of(("head", 2, 5, 4), ("all", 2000, 9, 0)), Progress())
    wait_for(r"compiling, \d+ s")
    observer.on_features(64, 4683)
    wait_for(r"features of 64 of 4,683 images, \d+ s")
    observer.on_features(4683, 4683)
    wait_for(r"compiling, \d+ s")
    observer.on_train(train_line(1))
    wait_for(r"loss 0\.500, 80\.0 images/s")
    # the second phase has a step of its own
    observer.on_train(train_line(2))
    wait_for(r"validating, \d+ s")
    observer.on_validation(VALIDATION)
    wait_for(r"compiling, \d+ s")
    # the first step of a phase says nothing of the time left
    observer.on_train(train_line(3, loss=0.25, phase="all"))
    observer.on_train(train_line(4, loss=0.25, phase="all"))
    observer.on_validation(VALIDATION)
    left = r"loss 0\.250, 80\.0 images/s.* left"
    wait_for(left if interactive else r"step 4 of 2,002, loss 0\.250, 80\.0 images/s, \d:\d\d:\d\d left")
    observer.close()


def test_steps_that_patience_left_out_are_passed_over(monkeypatch):
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.01)
    file = io.StringIO()
    observer = TerminalObserver(Terminal(console=Console(file=file, width=160)))
    observer.on_start(plan_of(("head", 100, 5, 4), ("all", 10, 9, 0)), Progress())
    observer.on_train(train_line(1))
    for step in (2, 3):
        observer.on_train(train_line(step, phase="all"))
    deadline = time.monotonic() + 120
    while "step 102 of 110, validating" not in file.getvalue():
        assert time.monotonic() < deadline, file.getvalue()
        time.sleep(0.01)
    observer.close()


def test_a_validation_without_auc_is_told():
    file = io.StringIO()
    observer = TerminalObserver(Terminal(console=Console(file=file, width=160)))
    observer.on_start(plan_of(("train", 10, 5, 0)), Progress())
    observer.on_validation(VALIDATION)
    observer.close()
    assert "step     5  epoch 0.50  validation: loss 0.2500, accuracy 87.5%, AUC –  (best so far)" in file.getvalue()
