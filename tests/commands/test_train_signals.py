"""Signals to a real training process: what it saves, that it leaves, and with which exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxr_jax.checkpoints import read_newest, saved_steps
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED
from cxr_jax.runs.metrics_log import read_metrics

START = """
import signal, sys
from cxr_jax.cli import main
# what runs in the background of a shell, tests too, hands down a SIGINT that is ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


class Training:
    """A training process that will not end by itself."""

    def __init__(self, config: Path, out: Path, *options: str) -> None:
        self.out = out
        command = [sys.executable, "-c", START, "train", str(config), "--out", str(out)]
        environment = os.environ | {"CXR_JAX_ALLOCATOR": "off", "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            [*command, "--training.epochs", "100000", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def step(self) -> int:
        """The newest step that is logged."""
        path = self.out / "metrics.jsonl"
        lines = read_metrics(path) if path.is_file() else []
        return max((line["step"] for line in lines), default=0)

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + 240
        while self.step() < step and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.process.poll() is None, self.process.stderr.read()

    def end(self) -> tuple[int, str]:
        """Exit code, and what stood on standard error."""
        _, errors = self.process.communicate(timeout=240)
        return self.process.returncode, errors


@pytest.fixture
def start(prepared_phantoms, config_file, tmp_path):
    trainings = []

    def begin(*options: str) -> Training:
        trainings.append(Training(config_file, tmp_path / "run", *options))
        return trainings[-1]

    yield begin
    for training in trainings:
        training.process.kill()
        training.process.wait()
        training.process.stderr.close()


def test_sigterm_saves_and_leaves_with_its_own_code(start):
    training = start()
    training.wait_for_step(4)
    training.process.send_signal(signal.SIGTERM)
    code, errors = training.end()
    assert code == EXIT_TERMINATED, errors
    assert errors.count("\n") == 1
    assert "go on with cxr-jax train" in errors
    last = read_metrics(training.out / "metrics.jsonl")[-1]
    assert last["reason"] == "terminated"
    # not a step is lost
    assert read_newest(training.out / "checkpoints" / "last").step == last["step"]


def test_ctrl_c_twice_leaves_a_run_that_goes_on(start):
    step = 0
    # the second one meets the first save of the stop, or what comes after it
    for pause, options in ((0.005, ()), (0.03, ("--resume",))):
        training = start(*options)
        # beyond a checkpoint, which comes with the end of an epoch
        training.wait_for_step(step + 9)
        training.process.send_signal(signal.SIGINT)
        time.sleep(pause)
        training.process.send_signal(signal.SIGINT)
        code, errors = training.end()
        assert code == EXIT_INTERRUPTED, errors
        assert errors.count("\n") == 1, errors
        last, told = training.out / "checkpoints" / "last", []
        newest = read_newest(last, told.append).step
        assert (newest, told) == (saved_steps(last)[-1], [])
        assert newest > step
        step = newest
    steps = [line["step"] for line in read_metrics(training.out / "metrics.jsonl") if line["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))
