"""Several processes: who they are, that they compute what one would, and what the others do when one is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from process_worker import MODEL, doubled, make_trainer, take_steps

from cxr_jax.checkpoints import Checkpoint, saved_steps
from cxr_jax.config.schema import ParallelConfig
from cxr_jax.data.batches import Share
from cxr_jax.errors import EXIT_LOST, EXIT_TERMINATED, UserError
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.training.connections import Place
from cxr_jax.training.network import build_network
from cxr_jax.training.processes import ALONE, find_place, joined
from cxr_jax.training.saving import LAST

ROOT = Path(__file__).parents[2]
SLURM = {
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NODELIST": "gpu[003-005,007],other9",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
}
TPU = {"TPU_WORKER_HOSTNAMES": "10.0.0.4,10.0.0.5", "TPU_WORKER_ID": "1"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Workers:
    """Processes that train together, each with two CPU devices."""

    def __init__(self, work: str, out: Path, *, heartbeat: int = 20, processes: int = 2) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "GRPC_VERBOSITY": "ERROR",
        }
        port = str(free_port())
        command = [sys.executable, str(ROOT / "tests/training/process_worker.py"), work, str(out), port]
        self.processes = [
            subprocess.Popen(
                [*command, str(processes), str(number), str(heartbeat)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def end_of(self, number: int, within: float) -> tuple[int, str]:
        """The exit code of a process and what it said on standard error."""
        _, errors = self.processes[number].communicate(timeout=within)
        return self.processes[number].returncode, errors

    def await_steps(self, out: Path, count: int) -> None:
        deadline = time.monotonic() + 120
        metrics = out / "metrics.jsonl"
        while not (metrics.is_file() and metrics.read_text().count('"train"') >= count):
            assert time.monotonic() < deadline
            assert [process.poll() for process in self.processes] == [None] * len(self.processes), self.end_of(0, 5)
            time.sleep(0.05)


def steps_logged(out: Path) -> list[int]:
    return [line["step"] for line in read_metrics(out / "metrics.jsonl") if line["kind"] == "train"]


@pytest.mark.parametrize(
    ("parallel", "environment", "place"),
    [
        (ParallelConfig(), {}, None),
        (ParallelConfig(), SLURM, Place("gpu003", 61440 + 70001 % 4096, 2, 4)),
        (ParallelConfig(), SLURM | {"SLURM_STEP_NODELIST": "node7,node8"}, Place("node7", 61440 + 70001 % 4096, 2, 4)),
        (ParallelConfig(), SLURM | {"SLURM_NTASKS": "1"}, None),
        (ParallelConfig(processes=1), SLURM, None),
        (ParallelConfig(coordinator="head:9"), SLURM, Place("head", 9, 2, 4)),
        (ParallelConfig(), TPU, Place("10.0.0.4", 8476, 1, 2)),
        (ParallelConfig(), {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        (ParallelConfig(coordinator="[::1]:80", processes=3, process_id=0), {}, Place("::1", 80, 0, 3)),
    ],
)
def test_a_process_finds_its_place(parallel, environment, place):
    assert find_place(parallel, environment) == place


@pytest.mark.parametrize(
    ("parallel", "sentence"),
    [
        (ParallelConfig(processes=2, coordinator="a:1"), r"process_id is -1, but must be from 0 to 1"),
        (ParallelConfig(processes=2, process_id=2), r"process_id is 2, but must be from 0 to 1"),
        (ParallelConfig(processes=2, process_id=0), r"parallel\.coordinator is empty, but 2 processes"),
        (ParallelConfig("jit", 0, "host", 2, 0), r"parallel\.coordinator is 'host', but must be HOST:PORT"),
        (ParallelConfig("jit", 0, "host:99999", 2, 0), r"parallel\.coordinator is 'host:99999', but must be"),
    ],
)
def test_a_place_that_cannot_be_told_is_a_mistake(parallel, sentence):
    with pytest.raises(UserError, match=sentence):
        find_place(parallel, {})


def test_alone_a_process_agrees_with_itself():
    ALONE.require_same("config", {"a": 1})
    ALONE.together()
    assert (ALONE.writes, ALONE.share) == (True, Share(0, 1))
    assert (ALONE.agree_to_stop("terminated"), ALONE.agree(False)) == ("terminated", False)
    checkpoint = Checkpoint(1, {}, {})
    assert ALONE.handed_out(lambda: checkpoint) is checkpoint


def test_without_several_processes_there_is_nothing_to_join():
    with joined(ParallelConfig(), {}) as group:
        assert group is ALONE


def test_two_processes_of_two_devices_compute_what_one_device_does(tmp_path):
    with Workers("steps", tmp_path) as workers, jax.enable_x64(True):
        losses, arrays = take_steps(doubled(build_network(MODEL, seed=0)), 1, "jit")
        for number in (0, 1):
            assert workers.end_of(number, 580) == (0, "")
    for backend in ("jit-host", "jit-device", "pmap-host", "pmap-device"):
        with np.load(tmp_path / f"{backend}.npz") as stored:
            np.testing.assert_allclose(stored["losses"], losses, rtol=1e-9, err_msg=backend)
            for name, value in arrays.items():
                np.testing.assert_allclose(stored[name], value, rtol=1e-9, atol=1e-9, err_msg=f"{backend} {name}")
    for backend in ("jit", "pmap"):
        with np.load(tmp_path / f"{backend}-host.npz") as host, np.load(tmp_path / f"{backend}-device.npz") as device:
            for name, value in host.items():
                np.testing.assert_array_equal(device[name], value, err_msg=f"{backend} {name}")


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_is_killed_the_other_says_so_and_the_run_goes_on_elsewhere(tmp_path, killed):
    out = tmp_path / "run"
    with Workers("slow", out) as workers:
        workers.await_steps(out, 7)
        workers.processes[killed].send_signal(signal.SIGKILL)
        code, errors = workers.end_of(1 - killed, 15)
    assert code == EXIT_LOST, errors
    assert errors.startswith(f"cxr-jax: process {killed} ended without a word: it was killed, crashed")
    assert errors.count("\n") == 1
    if killed == 1:
        # one process of eight devices in place of two with two devices each
        run = RunFolder(out)
        assert saved_steps(run.checkpoints / LAST)
        assert make_trainer(run, devices=8).train(resume=True) == "finished"
        assert steps_logged(out) == list(range(1, 16))


def test_one_that_is_stopped_is_named_after_the_time_out_and_one_that_is_asked_to_end_takes_the_others_along(tmp_path):
    out = tmp_path / "run"
    with Workers("slow", out) as workers:
        workers.await_steps(out, 3)
        workers.processes[1].send_signal(signal.SIGTERM)
        ends = [workers.end_of(number, 30) for number in (0, 1)]
    for code, errors in ends:
        assert code == EXIT_TERMINATED, errors
        assert "training was terminated after step" in errors
    reached = steps_logged(out)[-1]
    assert read_metrics(out / "metrics.jsonl")[-1]["reason"] == "terminated"
    assert reached == saved_steps(out / "checkpoints" / LAST)[-1]
    with Workers("slow", out, heartbeat=2) as workers:
        workers.await_steps(out, reached + 2)
        workers.processes[1].send_signal(signal.SIGSTOP)
        code, errors = workers.end_of(0, 20)
    assert code == EXIT_LOST
    assert errors.startswith("cxr-jax: process 1 has not been heard of for 2 s (parallel.heartbeat_timeout)")
    assert steps_logged(out) == list(range(1, steps_logged(out)[-1] + 1))
