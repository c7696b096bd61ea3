"""Several processes started on one machine, here of a stand-in for the package that does as the test says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "launch_local"

STAND_IN = """
import os, signal, sys, time
what, arguments = sys.argv[1], sys.argv[2:]
options = dict(zip(arguments[-6::2], arguments[-5::2]))
number = int(options["--parallel.process-id"])
print(f"hello {number} {os.environ['JAX_LOCAL_DEVICE_IDS']} {os.environ['JAX_NUM_CPU_DEVICES']}", flush=True)
print("address", options["--parallel.coordinator"], options["--parallel.processes"], *arguments[:-6], flush=True)
def stop(sent, frame):
    print(f"stopped by {sent}", file=sys.stderr, flush=True)
    sys.exit(75)
if what == "wait" or (what.startswith("one") and number != 1):
    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, stop)
    print("ready", flush=True)
    time.sleep(1.0 if what == "one fails" else 60)
    sys.exit(69 if what == "one fails" else 0)
if what == "one fails":
    print("a sentence", file=sys.stderr, flush=True)
    sys.exit(1)
if what == "one is killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def script(tmp_path) -> Path:
    """A copy of the script in a checkout whose package is the stand-in."""
    package = tmp_path / "packages" / "cxr_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    (tmp_path / "scripts").mkdir()
    return Path(shutil.copy(SCRIPT, tmp_path / "scripts"))


def start(script: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": str(script.parents[1] / "packages")},
        # not that of a checkout, whose package Python would take first
        cwd=script.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: Path, *arguments: str) -> tuple[int, list[str], str]:
    with start(script, *arguments) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, sorted(output.splitlines()), errors


def test_every_process_gets_its_number_its_devices_and_the_same_address(script):
    code, output, errors = run(script, "3", "--devices", "2", "--", "train", "tiny.toml", "--out", "run")
    assert (code, errors) == (0, "")
    assert [line for line in output if "hello" in line] == [
        "[0] hello 0 0,1 2",
        "[1] hello 1 2,3 2",
        "[2] hello 2 4,5 2",
    ]
    addresses = {line.partition(" ")[2] for line in output if "address" in line}
    assert len(addresses) == 1
    word, address, processes, *arguments = addresses.pop().split()
    assert (word, processes, arguments) == ("address", "3", ["tiny.toml", "--out", "run"])
    assert address.startswith("127.0.0.1:")


def test_when_one_fails_the_others_get_time_for_their_own_words_and_its_code_is_returned(script):
    code, _, errors = run(script, "2", "--", "one fails")
    assert code == 1
    assert errors.splitlines() == [
        "[1] a sentence",
        "launch_local: process 1 ended with exit code 1; ending the others",
    ]


def test_when_one_is_killed_the_others_are_ended_if_they_do_not_end(script):
    source = script.read_text()
    script.write_text(source.replace("PATIENCE = 15.0", "PATIENCE = 0.5"))
    began = time.monotonic()
    code, _, errors = run(script, "3", "--", "one is killed")
    assert code == 128 + signal.SIGKILL
    assert "launch_local: process 1 was killed by SIGKILL; ending the others" in errors
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_once(script, sent):
    with start(script, "2", "--", "wait") as process:
        ready = 0
        while ready < 2:
            line = process.stdout.readline()
            assert line, process.communicate(timeout=30)
            ready += "ready" in line
        process.send_signal(sent)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 75
    for number in (0, 1):
        assert errors.count(f"[{number}] stopped by {sent.value}\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("0", "--", "train"), "argument N: is '0', but must be a whole number, 1 or more"),
        (("two", "--", "train"), "argument N: is 'two', but must be a whole number, 1 or more"),
        (("2", "--devices", "-1", "--", "train"), "argument --devices"),
        (("2",), "the following arguments are required: command"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_told(script, arguments, sentence):
    code, output, errors = run(script, *arguments)
    assert (code, output) == (2, [])
    assert f"launch_local: error: {sentence}" in errors
    assert "Traceback" not in errors


def test_help_says_what_happens(script):
    code, output, _ = run(script, "--help")
    assert code == 0
    assert any("scripts/launch_local N [--devices D] -- train CONFIG" in line for line in output)
