"""The harness that kills training: a few kills of real runs, and that it would notice what a kill could spoil."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.checkpoints import CheckpointWriter, read_newest
from cxr_jax.runs.folder import RunFolder
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "kill_harness.py"


@pytest.fixture(scope="module")
def harness():
    return module_of("kill_harness")


@pytest.fixture
def runs(tmp_path):
    """A run that was stopped half-way, and its copy."""
    whole = tmp_path / "whole"
    with zipfile.ZipFile(ROOT / "tests" / "stored_runs" / "format_1.zip") as archive:
        archive.extractall(whole)
    return RunFolder(whole), RunFolder(Path(shutil.copytree(whole, tmp_path / "resumed")))


def change_lines(run, change):
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(change(lines)))


def change_checkpoint(run, folder, change):
    saved = read_newest(run.checkpoints / folder)
    arrays, details = {name: np.array(value) for name, value in saved.arrays.items()}, dict(saved.details)
    change(arrays, details)
    with CheckpointWriter(run.checkpoints / folder, keep=2) as writer:
        writer.save(saved.step, arrays, details)


def another_time(line):
    return json.dumps(json.loads(line) | {"seconds": 99.0}) + "\n"


def test_equal_runs_differ_in_nothing_and_timings_do_not_count(harness, runs):
    whole, resumed = runs
    change_lines(resumed, lambda lines: [another_time(line) for line in lines])
    assert harness.differences(whole, resumed) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "lines instead of"),
        (lambda lines: [*lines[:3], *lines[4:]], "lines instead of"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 1 of the metrics is"),
        (lambda lines: [*lines[:-2], lines[-2].replace('"loss": 0', '"loss": 1'), lines[-1]], "of the metrics is"),
    ],
    ids=["doubled", "missing", "swapped", "changed"],
)
def test_a_metrics_line_out_of_place_is_seen(harness, runs, change, told):
    whole, resumed = runs
    change_lines(resumed, change)
    assert any(told in sentence for sentence in harness.differences(whole, resumed))


def nudge(prefix):
    """Change one number, in its last bit, of the first array whose name begins so."""

    def change(arrays, details):
        name = min(name for name in arrays if name.startswith(prefix) and arrays[name].size > 1)
        arrays[name].reshape(-1).view(np.uint8)[0] ^= 1

    return change


@pytest.mark.parametrize(
    ("folder", "change", "told"),
    [
        ("last", nudge("params."), "params.* differs in last"),
        ("last", nudge("batch_stats."), "batch_stats.* differs in last"),
        ("last", nudge("optimizer_state."), "optimizer_state.* differs in last"),
        ("best", nudge("params."), "params.* differs in best"),
        ("last", lambda arrays, details: arrays.pop("step"), "step differs in last"),
        ("last", lambda arrays, details: details.update(stale_validations=9), "last says"),
    ],
)
def test_another_state_is_seen(harness, runs, folder, change, told):
    whole, resumed = runs
    change_checkpoint(resumed, folder, change)
    assert any(re.search(told, sentence) for sentence in harness.differences(whole, resumed))


@pytest.mark.slow
def test_runs_killed_three_times_end_as_if_undisturbed(tmp_path):
    # this seed begins with kills in a checkpoint, a validation and at the border of the phases
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--scenarios", "jit-two-phases", "--seed", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout
    assert "every run ended as if undisturbed" in done.stdout
