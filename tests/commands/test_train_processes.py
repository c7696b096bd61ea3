"""`cxr-jax train` in several processes, each a real one of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax.cli import main as command_line
from cxr_jax.process import KERNELS_SWITCH
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics

ROOT = Path(__file__).parents[2]
# jax, imported by these tests, asks in the environment for the logs that a command leaves out
LOGS = {"TF_CPP_MIN_LOG_LEVEL": "3"}
ENVIRONMENT = {"CXR_JAX_ALLOCATOR": "off", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **LOGS}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def run_two(config: Path, out: Path, *, first: tuple = (), second: tuple = ()) -> list[tuple[int, str]]:
    """Exit code and standard error of two processes, which differ in their further options and environments."""
    address = f"127.0.0.1:{free_port()}"
    processes = []
    for number, (options, environment) in enumerate((first or ((), {}), second or ((), {}))):
        command = [sys.executable, "-m", "cxr_jax", "train", str(config), "--out", str(out), *options]
        command += ["--parallel.coordinator", address, "--parallel.world-size", "2"]
        command += ["--parallel.rank", str(number), "--parallel.startup-timeout", "60"]
        processes.append(
            subprocess.Popen(
                command,
                env={**os.environ, **ENVIRONMENT, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ends = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, errors) for process, (_, errors) in zip(processes, ends, strict=True)]


def test_processes_with_different_configs_are_told_in_what_they_differ(prepared_phantoms, config_file, tmp_path):
    ends = run_two(config_file, tmp_path / "run", second=(("--optimizer.learning-rate", "0.5"), {}))
    sentence = "optimizer.learning_rate is 0.05 for process 0 and 0.5 for process 1; start all of them with the same"
    assert ends == [(69, f"cxr-jax: the processes differ in config: {sentence}\n")] * 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_with_different_data_are_told_so(prepared_phantoms, config_file, phantom_source, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(phantom_source, tmp_path / "phantoms")
    next((tmp_path / "phantoms").rglob("train/*/*.jpeg")).unlink()
    environment = {**os.environ, **ENVIRONMENT, "CXR_PREPARED_DIR": str(other)}
    prepare = [sys.executable, "-m", "cxr_jax", "prepare", str(tmp_path / "phantoms")]
    subprocess.run(prepare, env=environment, check=True, capture_output=True)
    ends = run_two(config_file, tmp_path / "run", second=((), {"CXR_PREPARED_DIR": str(other)}))
    for code, errors in ends:
        assert code == 69
        assert errors.startswith("cxr-jax: the processes differ in what they train on: the data's fingerprint is ")
        assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("native_kernels")
def test_processes_that_would_compute_in_different_ways_are_told_so(prepared_phantoms, config_file, tmp_path):
    options = ("--parallel.backend", "pmap")
    ends = run_two(config_file, tmp_path / "run", first=(options, {}), second=(options, {KERNELS_SWITCH: "off"}))
    sentence = "the precision is 'bf16 by native kernels' for process 0 and 'float32 by XLA' for process 1; start all"
    assert ends == [(69, f"cxr-jax: the processes differ in how they compute: {sentence} of them with the same\n")] * 2
    assert not (tmp_path / "run").exists()


class Clock:
    """Stands for the module `time`: nobody waits, and what was waited for is counted."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_coordinator_that_cannot_be_reached_is_one_sentence_after_the_time_out(
    config_file, tmp_path, capsys, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr("cxr_jax.training.connections.time", clock)
    port = free_port()
    arguments = ["train", str(config_file), "--out", str(tmp_path / "run"), "--parallel.startup-timeout", "1"]
    arguments += ["--parallel.coordinator", f"127.0.0.1:{port}", "--parallel.world-size", "2"]
    assert command_line([*arguments, "--parallel.rank", "1"]) == 69
    assert 1 < clock.now < 1.5
    assert capsys.readouterr().err.startswith(
        f"cxr-jax: process 1 could not reach process 0 at 127.0.0.1:{port} within 1 s (parallel.startup_timeout;"
    )


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_two(run_path, config_file):
    steps = [line["step"] for line in read_metrics(run_path / "metrics.jsonl") if line["kind"] == "train"]
    # as if it had been killed after its first epoch, of all devices of one process
    first, last = sorted((run_path / "checkpoints" / "last").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(last)
    assert run_two(config_file, run_path, first=(("--resume",), {}), second=(("--resume",), {})) == [(0, "")] * 2
    lines = read_metrics(run_path / "metrics.jsonl")
    assert int(first.name) < steps[-1]
    assert [line["step"] for line in lines if line["kind"] == "train"] == steps
    assert lines[-1]["reason"] == "finished"
    assert last.exists()
    # what belongs to one launch is not kept, so that the config can be used anywhere
    assert "127.0.0.1" not in RunFolder(run_path).config.read_text()


@pytest.mark.parametrize("missing", ["--parallel.coordinator", "--parallel.rank"])
def test_what_a_launch_lacks_is_told(config_file, tmp_path, capsys, missing):
    options = {"--parallel.coordinator": "127.0.0.1:1", "--parallel.rank": "0", "--parallel.world-size": "2"}
    del options[missing]
    arguments = [text for option in options.items() for text in option]
    assert command_line(["train", str(config_file), "--out", str(tmp_path / "run"), *arguments]) == 1
    assert missing.removeprefix("--").replace("-", "_") in capsys.readouterr().err
