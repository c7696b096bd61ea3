"""Several processes started on one machine, here of a stand-in for the package that does as the test says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "launch_local"

STAND_IN = """
import os, signal, sys, time
from pathlib import Path
what, arguments = sys.argv[1], sys.argv[2:]
# in one piece: the lines of several processes would run into each other
def say(*words, to=1):
    os.write(to, (" ".join(map(str, words)) + "\\n").encode())
options = dict(zip(arguments[-6::2], arguments[-5::2]))
number = int(options["--parallel.rank"])
say(f"hello {number} {os.environ['JAX_LOCAL_DEVICE_IDS']} {os.environ['JAX_NUM_CPU_DEVICES']}")
say("address", options["--parallel.coordinator"], options["--parallel.world-size"], *arguments[:-6])
def stop(sent, frame):
    say(f"{number} stopped by {sent}", to=2)
    sys.exit(75)
if what == "wait" or (what.startswith("one") and number != 1):
    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, stop)
    say("ready")
    if what == "wait":
        time.sleep(60)
    # as the others of a training do: until the one that fails has ended, and its end has been seen
    while not Path("failing").exists():
        time.sleep(0.01)
    try:
        while True:
            os.kill(int(Path("failing").read_text()), 0)
            time.sleep(0.01)
    except ProcessLookupError:
        sys.exit(69)
if what.startswith("one"):
    Path("failing.part").write_text(str(os.getpid()))
    Path("failing.part").rename("failing")
if what == "one fails":
    say("a sentence", to=2)
    sys.exit(1)
if what == "one is killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def packages(tmp_path) -> Path:
    """A folder in which the package is the stand-in, for the processes that the script starts."""
    package = tmp_path / "cxr_jax"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    return tmp_path


def start(packages: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "PYTHONPATH": str(packages)},
        # not that of a checkout, whose package Python would take first
        cwd=packages,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(packages: Path, *arguments: str) -> tuple[int, list[str], str]:
    with start(packages, *arguments) as process:
        output, errors = process.communicate(timeout=120)
    return process.returncode, sorted(output.splitlines()), errors


def test_every_process_gets_its_number_its_devices_and_the_same_address(packages):
    code, output, errors = run(packages, "3", "--devices", "2", "--", "train", "tiny.toml", "--out", "run")
    assert (code, errors) == (0, "")
    assert [line for line in output if "hello" in line] == ["hello 0 0,1 2", "hello 1 2,3 2", "hello 2 4,5 2"]
    addresses = {line for line in output if "address" in line}
    assert len(addresses) == 1
    word, address, processes, *arguments = addresses.pop().split()
    assert (word, processes, arguments) == ("address", "3", ["tiny.toml", "--out", "run"])
    assert address.startswith("127.0.0.1:")


def test_when_one_fails_it_is_named_at_once_and_its_code_is_returned_when_the_others_have_ended(packages):
    code, _, errors = run(packages, "2", "--", "one fails")
    assert code == 1
    assert errors.splitlines() == [
        "a sentence",
        "launch_local: process 1 ended: exit code 1",
        "launch_local: process 0 ended: exit code 69",
    ]


def test_when_one_is_killed_it_is_named_and_its_signal_is_in_the_code(packages):
    code, _, errors = run(packages, "2", "--", "one is killed")
    assert code == 128 + signal.SIGKILL
    assert "launch_local: process 1 ended: it was killed, most likely because memory ran out\n" in errors


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_once(packages, sent):
    with start(packages, "2", "--", "wait") as process:
        ready = 0
        while ready < 2:
            line = process.stdout.readline()
            assert line, process.communicate(timeout=120)
            ready += "ready" in line
        process.send_signal(sent)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 75
    for number in (0, 1):
        assert errors.count(f"{number} stopped by {sent.value}\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("0", "--", "train"), "argument N: is '0', but must be a whole number, 1 or more"),
        (("two", "--", "train"), "argument N: is 'two', but must be a whole number, 1 or more"),
        (("2", "--devices", "-1", "--", "train"), "argument --devices"),
        (("2",), "the following arguments are required: command"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_told(packages, arguments, sentence):
    code, output, errors = run(packages, *arguments)
    assert (code, output) == (2, [])
    assert f"launch_local: error: {sentence}" in errors
    assert "Traceback" not in errors


def test_help_says_what_happens(packages):
    code, output, _ = run(packages, "--help")
    assert code == 0
    assert any("scripts/launch_local N [--devices D] -- train CONFIG" in line for line in output)
