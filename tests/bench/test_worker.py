import json
import os
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.bench import ceilings, depthwise, epoch, worker
from cxr_jax.bench.workload import Workload
from cxr_jax.errors import UserError

CASE = {"model": "net", "image_size": 32, "batch_size": 2, "work": "train", "threads": 1}


@pytest.fixture
def held(monkeypatch):
    """Cores that a process with two of them was held to, without holding this one."""
    calls = []
    cores = {4, 7}

    def hold(process, chosen):
        assert process == 0
        calls.append(list(chosen))
        cores.intersection_update(chosen)

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(cores), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", hold, raising=False)
    return calls


def test_a_case_is_prepared_warmed_up_and_run_in_rounds(monkeypatch, held, tmp_path):
    events = []

    def prepare(case):
        events.append(("prepared", case.model, list(held)))
        return Workload(lambda: events.append("step"), {"flops": 1.0}, lambda: 5)

    monkeypatch.setattr(worker, "_prepare", prepare)
    replies = []
    requests = [{"case": CASE, "warm_up": 3}, {"steps": 4, "seconds": 0.0}, {"trace": str(tmp_path)}]
    worker.serve(requests, replies.append, as_installed=False)
    # cores are settled before anything starts threads
    assert events[0] == ("prepared", "net", [[4]])
    assert events[1:] == ["step"] * (3 + 1 + 4 + worker.TRACED_STEPS)
    ready, seconds, traced, last = replies
    assert ready == {"ready": {"flops": 1.0, "cores": 1, "allocator": "default"}}
    assert len(seconds["seconds"]) == 4
    assert traced == {"traced": str(tmp_path)}
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert last["device_peak_bytes"] == 5
    assert last["peak_memory_bytes"] > 10 * 2**20


def test_all_cores_are_left_alone(held):
    worker.hold_to_cores(2)
    assert held == []


def test_a_round_leaves_its_first_step_out_and_is_long_enough(monkeypatch):
    clock = [0.0]
    costs = iter([50.0, 1.0, 2.0, 3.0, 50.0, 1.0, 2.0, 3.0, 4.0])

    def step():
        clock[0] += next(costs)

    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock[0])
    assert worker.run_round(step, steps=3, seconds=0.0) == [1.0, 2.0, 3.0]
    assert worker.run_round(step, steps=1, seconds=5.5) == [1.0, 2.0, 3.0]
    assert worker.run_round(step, steps=1, seconds=0.0, uncounted=0) == [4.0]


def test_ceilings_are_measured_on_the_cores_asked_for(monkeypatch, held):
    monkeypatch.setattr(ceilings, "CPU_SIZES", ceilings.Sizes(matrix=64, copied_bytes=2**16))
    replies = []
    worker.serve([{"ceilings": {"threads": 1}}], replies.append, as_installed=False)
    assert held == [[4]]
    (measured,) = replies
    assert set(measured) == {"matmul_float32_flops", "matmul_bfloat16_flops", "copy_bytes"}
    assert all(value > 1e6 for value in measured.values())


def test_ceilings_count_operations_and_bytes_both_ways(monkeypatch):
    queues = []
    monkeypatch.setattr(ceilings, "fastest", lambda program, *operands, queued: queues.append(queued) or 0.5)
    measured = ceilings.measure_ceilings(ceilings.Sizes(matrix=64, copied_bytes=4096, queued=3))
    assert queues == [3, 3, 3]
    assert measured == ceilings.Ceilings(2 * 64**3 / 0.5, 2 * 64**3 / 0.5, 2 * 4096 / 0.5)


def test_the_fastest_run_counts_and_the_first_does_not(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(ceilings, "REPEATS", 3)
    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: next(clock))
    calls = []
    assert ceilings.fastest(lambda value: calls.append(value) or value, np.float32(1)) == 2.0
    assert len(calls) == 4


def test_queued_runs_share_the_time(monkeypatch):
    clock = iter([0.0, 8.0])
    monkeypatch.setattr(ceilings, "REPEATS", 1)
    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: next(clock))
    calls = []
    assert ceilings.fastest(lambda value: calls.append(value) or value, np.float32(1), queued=4) == 2.0
    assert len(calls) == 1 + 4


def test_rows_of_the_depthwise_convolutions_come_one_by_one(monkeypatch, held):
    monkeypatch.setattr(depthwise, "measure_depthwise", lambda case, copy: iter([{"of": case.model, "copy": copy}] * 2))
    case = {"model": "net", "image_size": 32, "batch_size": 2, "threads": 1}
    replies = []
    worker.serve([{"depthwise": case, "copy_bytes": 5.0}], replies.append, as_installed=True)
    assert replies == [*[{"row": {"of": "net", "copy": 5.0}}] * 2, {"rows": 2}]
    assert held == [[4]]


def test_an_epoch_is_told_with_its_peak_memory(monkeypatch, held):
    monkeypatch.setattr(epoch, "run_epoch", lambda case: {"ratio": 1.0, "of": case.dataset})
    monkeypatch.setattr(worker, "peak_memory_bytes", lambda: 7)
    case = {"model": "net", "image_size": 32, "batch_size": 2, "threads": 1, "dataset": "few"}
    replies = []
    worker.serve([{"epoch": case}], replies.append, as_installed=True)
    assert replies == [{"ratio": 1.0, "of": "few", "peak_memory_bytes": 7}]
    assert held == [[4]]


@pytest.mark.parametrize(
    ("environment", "as_installed", "described"),
    [
        ({}, False, "default"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, False, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, True, "glibc.malloc.hugetlb=1, freed memory kept"),
        ({"CXR_JAX_ALLOCATOR": "off"}, True, "default"),
        ({"LD_PRELOAD": "/a/libtcmalloc.so.4:/b/libc.so"}, True, "preloaded libtcmalloc.so.4, libc.so"),
    ],
)
def test_the_allocator_is_named(monkeypatch, environment, as_installed, described):
    monkeypatch.setattr("cxr_jax.process.glibc_version", lambda: (2, 36))
    environment = {"JAX_PLATFORMS": "cpu", **environment}
    assert worker.describe_allocator(environment, as_installed=as_installed) == described


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc/self/statm")
def test_peak_memory_is_in_bytes_and_above_what_is_resident(monkeypatch):
    block = np.ones(64 * 2**20, np.uint8)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = worker.peak_memory_bytes()
    assert block.nbytes < 0.98 * resident <= peak < 64 * 2**30
    del block
    # the kernel counts to a few pages a thread
    assert worker.peak_memory_bytes() >= 0.99 * peak
    monkeypatch.setattr(worker, "Path", lambda path: Path("/missing"))
    assert 0.95 * peak < worker.peak_memory_bytes() < 64 * 2**30


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("no such model."), "no such model."),
        (MemoryError(), "out of memory; a smaller batch or image size needs less"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes\nmore"),
            "out of memory; a smaller batch or image size needs less",
        ),
        (KeyError("a\nb"), "unexpected KeyError: 'a\\nb'"),
    ],
)
def test_errors_become_sentences(error, sentence):
    assert worker.tell(error) == sentence


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs /proc/self/maps")
def test_a_library_that_was_not_preloaded_is_noticed(tmp_path):
    library = tmp_path / "libnothing.so"
    library.write_text("no library")
    with pytest.raises(UserError, match=r"libnothing\.so could not be preloaded"):
        worker.serve([{"case": {**CASE, "preload": str(library)}, "warm_up": 0}], print, as_installed=False)


def test_answers_have_the_standard_output_for_themselves(monkeypatch, capfd):
    """Whatever a library prints goes to standard error; a failure is an answer too."""

    def serve(requests, reply, *, as_installed):
        assert list(requests) == [{"a": 1}, {"b": 2}]
        assert not as_installed
        os.write(1, b"noise of a library\n")
        reply({"ready": 1})
        raise KeyError("gone")

    output, errors = os.dup(1), os.dup(2)
    monkeypatch.setattr(worker, "serve", serve)
    monkeypatch.setattr(worker.sys, "argv", ["worker"])
    monkeypatch.setattr(worker.sys, "stdin", ['{"a": 1}\n', '{"b": 2}\n'])
    try:
        worker.main()
    finally:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.close(output)
        os.close(errors)
    printed = capfd.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == [
        {"ready": 1},
        {"failure": "unexpected KeyError: 'gone'"},
    ]
    assert printed.err == "noise of a library\n"
