"""Several processes: that they compute what one would, and what the others do when one is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import process_worker as worker
import pytest
from smallest_network import smallest_network
from training_runs import doubled, take_steps

from cxr_jax.checkpoints import Checkpoint, saved_steps
from cxr_jax.config.schema import ParallelConfig
from cxr_jax.errors import EXIT_LOST, EXIT_TERMINATED, UserError
from cxr_jax.images.batches import Share
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.training.connections import Connections, Place
from cxr_jax.training.processes import ALONE, connected, joined
from cxr_jax.training.saving import LAST

ADVICE = "; start all processes again, with --resume once there is a checkpoint\n"
GONE = "ended without a word: it was killed, crashed or ran out of memory"
PATIENT = ParallelConfig(startup_timeout=120, heartbeat_timeout=60, step_timeout=600)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Processes:
    """Starts processes that do what a function of `process_worker` says, and tells how they ended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.started = folder, free_port(), {}
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(["process_worker"])

    def start(self, number: int, work: Callable, *arguments: Any, count: int, limits: ParallelConfig, run: Callable):
        place = Place("127.0.0.1", self.port, number, count)
        said = self.folder / f"said-{len(self.started)}"
        process = self._forks.Process(target=run, args=(said, work, place, limits, arguments))
        process.start()
        self.started[len(self.started)] = process, said

    def start_all(self, work: Callable, *arguments: Any, count: int = 3, run: Callable = worker.run, **limits: int):
        for number in range(count):
            self.start(number, work, *arguments, count=count, limits=_limits(**limits), run=run)

    def send(self, index: int, sent: int) -> None:
        os.kill(self.started[index][0].pid, sent)

    def await_ready(self) -> None:
        deadline = time.monotonic() + 120
        while not all(said.exists() and worker.READY in said.read_text() for _, said in self.started.values()):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end_of(self, index: int, within: float = 120) -> tuple[int, str]:
        """The exit code of a process, and what it said."""
        process, said = self.started[index]
        process.join(within)
        return process.exitcode, said.read_text().removeprefix(worker.READY)

    def ends(self, *besides: int, within: float = 120) -> list[tuple[int, str]]:
        return [self.end_of(index, within) for index in self.started if index not in besides]


def _limits(**limits: int) -> ParallelConfig:
    return ParallelConfig(**{"startup_timeout": 120, "heartbeat_timeout": 60, "step_timeout": 600, **limits})


@pytest.fixture(scope="module", autouse=True)
def _importable():
    """The process that others are forked from imports once what they need, and finds it by this variable alone."""
    with pytest.MonkeyPatch.context() as patch:
        folders = [str(Path(__file__).parents[2]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
        patch.setenv("GRPC_VERBOSITY", "ERROR")
        yield


@pytest.fixture
def processes(tmp_path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    for process, _ in processes.started.values():
        process.kill()
        process.join()


def lost(sentence: str) -> tuple[int, str]:
    return EXIT_LOST, f"cxr-jax: {sentence}{ADVICE}"


def test_every_process_gets_what_all_of_them_gave(processes):
    processes.start_all(worker.exchange_often)
    assert processes.ends() == [(0, json.dumps([True] * 20) + "\n")] * 3


def test_the_first_process_writes_and_each_reads_its_share(processes):
    processes.start_all(worker.facts)
    facts = [[number == 0, list(Share(number, 3)), True, False] for number in range(3)]
    assert [(code, json.loads(said)) for code, said in processes.ends()] == [(0, fact) for fact in facts]


def test_the_state_that_the_first_process_has_is_there_for_all(processes, tmp_path):
    (tmp_path / "0" / LAST / "5").mkdir(parents=True)
    processes.start_all(worker.sees_state, [str(tmp_path / str(number)) for number in range(3)])
    assert processes.ends() == [(0, "true\n")] * 3


@pytest.mark.parametrize("killed", [0, 2])
def test_a_killed_process_is_named_to_all_others_at_once(processes, killed):
    processes.start_all(worker.go_on, 60)
    processes.await_ready()
    processes.send(killed, signal.SIGKILL)
    assert processes.ends(killed) == [lost(f"process {killed} {GONE}")] * 2


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_without_a_sign_of_life_is_named_after_the_time_out(processes, stopped):
    processes.start_all(worker.go_on, 60, heartbeat_timeout=2)
    processes.await_ready()
    processes.send(stopped, signal.SIGSTOP)
    sentence = f"process {stopped} has not been heard of for 2 s (parallel.heartbeat_timeout): it is stopped or cut off"
    assert processes.ends(stopped) == [lost(sentence)] * 2


@pytest.mark.parametrize(
    ("hanging", "sentence"),
    [
        ([0], "process 0 has not moved on for 1 s (parallel.step_timeout): the others wait"),
        ([1, 2], "process 1, 2 has not moved on for 1 s (parallel.step_timeout): the others wait"),
        (
            [0, 1, 2],
            "process 0, 1, 2 has not moved on for 1 s (parallel.step_timeout): they hang, or a step takes longer",
        ),
    ],
)
def test_processes_that_live_but_do_not_move_on_are_named_to_all(processes, hanging, sentence):
    processes.start_all(worker.hang, hanging, step_timeout=1)
    for code, said in processes.ends():
        assert code == EXIT_LOST
        assert said.startswith(f"cxr-jax: {sentence}")
        assert said.count("\n") == 1


def test_processes_that_move_on_slowly_or_leave_after_their_part_are_left_alone(processes):
    processes.start_all(worker.go_on, 6, heartbeat_timeout=4, step_timeout=4)
    assert processes.ends() == [(0, "null\n")] * 3
    processes.start_all(worker.leave_one_after_another)
    assert processes.ends() == [(0, "null\n")] * 6


@pytest.mark.parametrize("failing", [0, 2])
def test_a_failure_is_told_with_its_reason(processes, failing):
    processes.start_all(worker.fail, [failing])
    expected = [lost(f"process {failing} stopped: the disk is full")] * 3
    expected[failing] = 1, "cxr-jax: the disk is full\n"
    assert processes.ends() == expected


def test_a_process_that_fails_itself_says_its_own_words(processes):
    processes.start_all(worker.fail, [0, 1, 2])
    assert processes.ends() == [(1, "cxr-jax: the disk is full\n")] * 3


def test_an_interruption_is_told_to_the_others(processes):
    processes.start_all(worker.fail, [0], True)
    assert processes.ends(0) == [lost("process 0 stopped: it was interrupted")] * 2


def test_what_the_processes_differ_in_is_named_in_all_of_them(processes):
    processes.start_all(worker.differ)
    sentence = "optimizer.learning_rate is 0.1 for process 0 and 0.2 for process 2; start all of them with the same"
    assert processes.ends() == [(EXIT_LOST, f"cxr-jax: the processes differ in config: {sentence}\n")] * 3


@pytest.mark.parametrize(("wishing", "at"), [(0, 1), (1, 20), (2, 1)])
def test_all_stop_at_the_same_call_soon_after_the_wish(processes, wishing, at):
    processes.start_all(worker.stop, wishing, at)
    ends = processes.ends()
    assert {code for code, _ in ends} == {0}
    stops = {int(said) for _, said in ends}
    assert len(stops) == 1
    assert at < stops.pop() < 9000


def test_those_that_do_not_come_are_named(processes):
    for number in (0, 1):
        processes.start(number, worker.go_on, 60, count=4, limits=_limits(startup_timeout=2), run=worker.run)
    sentence = "process 2, 3 did not come within 2 s (parallel.startup_timeout)"
    assert processes.ends() == [lost(sentence)] * 2


@pytest.mark.parametrize(
    ("number", "count", "sentence"),
    [
        (1, 2, "process 1 of 2 came once more, where process 0 expects each of 2 once"),
        (1, 3, "process 1 of 3 came once more, where process 0 expects each of 2 once"),
        (2, 3, "process 2 of 3 came, where process 0 expects each of 2 once"),
    ],
)
def test_a_process_that_cannot_be_one_of_them_is_refused_and_the_others_go_on(processes, number, count, sentence):
    processes.start_all(worker.go_on, 3, count=2)
    processes.await_ready()
    processes.start(number, worker.go_on, 3, count=count, limits=PATIENT, run=worker.run)
    assert processes.end_of(2) == lost(f"{sentence}: check parallel.world_size and parallel.rank")
    assert processes.ends(2) == [(0, "null\n")] * 2


def test_a_stranger_that_talks_nonsense_is_hung_up_on(processes):
    processes.start_all(worker.go_on, 2, count=2)
    processes.await_ready()
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"kind": "beat"}\n', b'[1, "beat", 3]\n', b"\xff\n"):
        with socket.create_connection(("127.0.0.1", processes.port), timeout=60) as stranger:
            stranger.sendall(nonsense)
            assert b"beat" not in stranger.recv(1000)
    assert processes.ends() == [(0, "null\n")] * 2


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen at"):
        Connections(Place("127.0.0.1", taken.getsockname()[1], 0, 2), PATIENT)


def test_alone_a_process_agrees_with_itself():
    with joined(ParallelConfig(), {}) as group:
        assert group is ALONE
    ALONE.require_same("config", {"a": 1})
    ALONE.together()
    assert (ALONE.writes, ALONE.share) == (True, Share(0, 1))
    assert (ALONE.agree_to_stop("terminated"), ALONE.agree(False)) == ("terminated", False)
    checkpoint = Checkpoint(1, {}, {})
    assert ALONE.handed_out(lambda: checkpoint) is checkpoint


def test_a_checkpoint_is_handed_out_to_the_bit():
    arrays = {
        "params.kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / -7,
        "step": jnp.asarray(12, jnp.int32),
        "half": jnp.asarray([1.5, -0.0], jnp.bfloat16),
        "none": jnp.zeros((0, 3)),
    }
    # a group that goes the way of several processes, though there is only this one
    with connected(Place("127.0.0.1", free_port(), 0, 1), PATIENT) as group:
        checkpoint = group.handed_out(lambda: Checkpoint(12, arrays, {"phase": 1}))
        assert group.handed_out(lambda: None) is None
    assert (checkpoint.step, checkpoint.details) == (12, {"phase": 1})
    assert checkpoint.arrays.keys() == arrays.keys()
    for name, value in arrays.items():
        assert checkpoint.arrays[name].dtype == value.dtype
        assert checkpoint.arrays[name].tobytes() == np.asarray(value).tobytes()


def assert_computed_as_by_one_device(processes: Processes, folder: Path, steps: int, cases: list) -> None:
    processes.start_all(worker.compute, str(folder), steps, cases, count=2, run=worker.run_joined)
    with jax.enable_x64(True):
        network = doubled(smallest_network(worker.MODEL))
        losses, arrays = take_steps(network, 1, "jit", steps=steps)
    assert processes.ends(within=550) == [(0, "null\n")] * 2
    for backend, on_devices in cases:
        case = f"{backend}-{'device' if on_devices else 'host'}"
        with np.load(folder / f"{case}.npz") as stored:
            np.testing.assert_allclose(stored["losses"], losses, rtol=1e-9, err_msg=case)
            for name, value in arrays.items():
                np.testing.assert_allclose(stored[name], value, rtol=1e-9, atol=1e-9, err_msg=f"{case} {name}")


def test_two_processes_of_two_devices_compute_what_one_device_does(processes, tmp_path):
    assert_computed_as_by_one_device(processes, tmp_path, 4, [("jit", True), ("pmap", False)])


@pytest.mark.slow
def test_two_processes_compute_the_same_for_longer_with_images_on_the_host_and_on_the_devices(processes, tmp_path):
    cases = [(backend, on_devices) for backend in ("jit", "pmap") for on_devices in (False, True)]
    assert_computed_as_by_one_device(processes, tmp_path, 20, cases)
    for backend in ("jit", "pmap"):
        with np.load(tmp_path / f"{backend}-host.npz") as host, np.load(tmp_path / f"{backend}-device.npz") as device:
            for name, value in host.items():
                np.testing.assert_array_equal(device[name], value, err_msg=f"{backend} {name}")


def steps_logged(out: Path) -> list[int]:
    return [line["step"] for line in read_metrics(out / "metrics.jsonl") if line["kind"] == "train"]


def train_two(processes: Processes, out: Path, process: int, at: int, number: int, **limits: int) -> None:
    arguments = (str(out), process, at, number)
    processes.start_all(worker.train, *arguments, count=2, run=worker.run_joined, **limits)


def assert_goes_on_with_one_process_of_eight_devices(out: Path) -> None:
    run = worker.make_trainer(RunFolder(out), devices=8, watcher=worker.Watcher())
    assert run.train(resume=True) == "finished"
    assert steps_logged(out) == list(range(1, 16))


def test_a_signal_to_one_has_all_save_and_the_run_goes_on_with_other_processes(processes, tmp_path):
    out = tmp_path / "run"
    train_two(processes, out, 1, 3, signal.SIGTERM)
    for code, said in processes.ends(within=300):
        assert code == EXIT_TERMINATED, said
        assert said.startswith("cxr-jax: training was terminated after step")
        assert said.count("\n") == 1
    reached = steps_logged(out)[-1]
    assert 3 <= reached < 15
    assert read_metrics(out / "metrics.jsonl")[-1]["reason"] == "terminated"
    assert reached == saved_steps(out / "checkpoints" / LAST)[-1]
    assert_goes_on_with_one_process_of_eight_devices(out)


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, GONE),
        (signal.SIGSTOP, "has not been heard of for 5 s (parallel.heartbeat_timeout): it is stopped or cut off"),
    ],
)
def test_one_lost_while_all_compute_is_named_and_the_run_goes_on(processes, tmp_path, process, number, how):
    out = tmp_path / "run"
    train_two(processes, out, process, 7, number, heartbeat_timeout=5)
    assert processes.end_of(1 - process, within=300) == lost(f"process {process} {how}")
    assert steps_logged(out)[-1] >= 6
    processes.started[process][0].kill()
    processes.end_of(process)
    assert_goes_on_with_one_process_of_eight_devices(out)
