"""What a person with one CPU and a C++ compiler gets by default: a run through the native kernels in bfloat16."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cxr_jax.checkpoints import read_newest, saved_steps
from cxr_jax.commands import train
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import probability_of
from cxr_jax.training.saving import LAST

ALONE = ["--parallel.devices", "1", "--training.epochs", "6"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder for what the tests share."""
    return tmp_path_factory.mktemp("native")


@pytest.fixture
def undisturbed(shared, prepared_phantoms, config_file, native_kernels, capsys):
    """A run that nobody disturbs, trained once, and what it printed."""
    out, printed = shared / "undisturbed", shared / "printed"
    if not printed.is_file():
        train.main([str(config_file), *ALONE, "--out", str(out)])
        printed.write_text(capsys.readouterr().out)
    return RunFolder.open(out), printed.read_text()


def outcome(run):
    """All arrays of the last state, and the figures of every step and validation."""
    arrays = {name: np.asarray(value) for name, value in read_newest(run.checkpoints / LAST).arrays.items()}
    timings = {"seconds", "images_per_second"}
    return arrays, [
        {name: value for name, value in line.items() if name not in timings} for line in read_metrics(run.metrics)
    ]


def kill_after(step, arguments, out):
    """Trains in a process of its own, which is killed once `step` lines are logged and a state is saved.

    XLA has as many threads there as here, on which the last bits of the kernels' sums depend.
    """
    command = [sys.executable, "-m", "cxr_jax", "train", *arguments, "--out", str(out)]
    alike = {"CXR_JAX_ALLOCATOR": "off", "JAX_NUM_CPU_DEVICES": str(jax.device_count())}
    process = subprocess.Popen(command, env=os.environ | alike, stdout=subprocess.DEVNULL)
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 240
    last = out / "checkpoints" / LAST
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < step or not saved_steps(last):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_whole_run_takes_the_kernels_learns_and_is_validated_in_float32(undisturbed):
    run, printed = undisturbed
    assert "bf16 by native kernels" in printed
    lines = read_metrics(run.metrics)
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    validations = [line for line in lines if line["kind"] == "validation"]
    assert len(validations) == 6
    # the restored network answers in float32, and as well as the validation of the same step said
    best = max(validations, key=lambda line: line["roc_auc"])
    model = restore_run(run)
    assert model.step == best["step"]
    logits = model.logits(np.zeros((1, model.image_size, model.image_size), np.uint8))
    assert logits.dtype == np.float32 and 0 < float(probability_of(logits)[0]) < 1


def test_a_run_that_was_killed_goes_on_by_the_kernels_to_the_same_bits(undisturbed, config_file, tmp_path, capsys):
    out = tmp_path / "killed"
    kill_after(8, [str(config_file), *ALONE], out)
    assert not any(line["kind"] == "end" for line in read_metrics(out / "metrics.jsonl"))
    train.main([str(config_file), *ALONE, "--out", str(out), "--resume"])
    assert "bf16 by native kernels" in capsys.readouterr().out
    (arrays, lines), (expected, expected_lines) = outcome(RunFolder.open(out)), outcome(undisturbed[0])
    assert lines == expected_lines
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)
