import json
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax.bench import worker
from cxr_jax.bench.ceilings import ceilings_of
from cxr_jax.errors import UserError

CASE = {"model": "mobilenetv2_tiny", "image_size": 32, "batch_size": 2, "work": "inference", "threads": 1, "devices": 1}


def test_a_case_is_prepared_warmed_up_and_takes_its_turns():
    """Facts, seconds and peaks are told in that order."""
    ready, seconds, last = worker.serve(iter([{"case": CASE}, {"steps": 4, "seconds": 0.0}]))
    assert ready["ready"]["flops"] > 1e5
    assert len(seconds["seconds"]) == 4
    assert all(value > 0 for value in seconds["seconds"])
    assert last["device_peak_bytes"] is None
    assert 50 * 2**20 < last["peak_memory_bytes"] < 64 * 2**30


def test_a_turn_leaves_its_first_step_out_and_is_long_enough(monkeypatch):
    clock = [0.0]
    costs = iter([50.0, 1.0, 2.0, 3.0, 50.0, 1.0, 2.0, 3.0, 4.0])

    def step():
        clock[0] += next(costs)

    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock[0])
    assert worker.run_round(step, steps=3, seconds=0.0) == [1.0, 2.0, 3.0]
    assert worker.run_round(step, steps=1, seconds=5.5) == [1.0, 2.0, 3.0]
    assert worker.run_round(step, steps=1, seconds=0.0, uncounted=0) == [4.0]


def test_ceilings_are_those_of_real_products_and_copies():
    measured = ceilings_of(matrix=64, copied_bytes=2**16, queued=2)
    assert 1e6 < measured.matmul_float32_flops < 1e15
    assert 1e6 < measured.matmul_bfloat16_flops < 1e16
    assert 1e6 < measured.copy_bytes < 1e14


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
def test_a_library_that_was_not_preloaded_is_noticed_by_a_real_child(tmp_path):
    """The answer is the only thing on the child's standard output."""
    library = tmp_path / "libnothing.so"
    library.write_text("no library")
    task = json.dumps(
        {
            "case": {**CASE, "preload": str(library)},
        }
    )
    done = subprocess.run([sys.executable, "-m", "cxr_jax.bench.worker"], input=task, capture_output=True, text=True)
    (line,) = done.stdout.splitlines()
    assert "libnothing.so could not be preloaded" in json.loads(line)["failure"]
