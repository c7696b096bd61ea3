import datetime
import fcntl
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder
from cxr_jax.runs.ledger import (
    append_look,
    has_fixed,
    is_evaluated,
    look_of_predictions,
    read_looks,
    require_that_of_the_look,
)
from cxr_jax.runs.predictions import Predictions, predictions_sha256


def test_looks_are_kept_in_order_with_date_and_version(tmp_path):
    run = RunFolder(tmp_path)
    assert read_looks(run) == []
    written = append_look(run, {"checkpoint": "best", "threshold": 0.5})
    append_look(run, {"checkpoint": "last", "threshold": 0.4})
    looks = read_looks(run)
    assert looks[0] == written
    assert [look["checkpoint"] for look in looks] == ["best", "last"]
    assert looks[0]["schema_version"] == SCHEMA_VERSION
    assert datetime.datetime.fromisoformat(looks[0]["date"]).tzinfo is not None


LOOKS = 200

APPENDER = """
import sys
from dataclasses import replace
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import append_look
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    append_look(RunFolder(sys.argv[1]), {"who": sys.argv[2], "number": number, "padding": "x" * (number * 37 % 6000)})
    print(number, flush=True)
"""


def appender(folder, who, looks=LOOKS):
    """A process that appends looks as soon as it is sent a line."""
    command = [sys.executable, "-c", APPENDER, str(folder), who, str(looks)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_two_processes_lose_no_look(tmp_path):
    processes = [appender(tmp_path, who) for who in "ab"]
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    lines = (tmp_path / "ledger.jsonl").read_bytes()
    assert lines.count(b"\n") == 2 * LOOKS and lines.endswith(b"}\n")
    looks = read_looks(RunFolder(tmp_path))
    for who in "ab":
        assert [look["number"] for look in looks if look["who"] == who] == list(range(LOOKS))
        assert all(len(look["padding"]) == look["number"] * 37 % 6000 for look in looks if look["who"] == who)


def test_a_writer_that_is_killed_loses_nothing_that_it_had_told(tmp_path):
    told = 0
    for _ in range(3):
        process = appender(tmp_path, "killed", 100_000)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        for _ in range(5):
            process.stdout.readline()
            told += 1
        process.kill()
        process.communicate()
    append_look(RunFolder(tmp_path), {"who": "last", "number": 0})
    whole = []
    for line in (tmp_path / "ledger.jsonl").read_text().splitlines():
        # A line is whole, or stands alone as what it is: torn.
        try:
            whole.append(json.loads(line))
        except ValueError:
            continue
    assert whole[-1]["who"] == "last"
    assert len(whole) > told


def test_a_look_waits_until_another_process_has_written_its_own(tmp_path):
    append_look(RunFolder(tmp_path), {"who": "first"})
    process = appender(tmp_path, "waiting", 1)
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        # half a line, as a writer on a slow disk leaves it for a moment
        file.write(b'{"who": ')
        file.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        file.write(b'"slow"}\n')
    process.communicate()
    assert [look["who"] for look in read_looks(RunFolder(tmp_path))] == ["first", "slow", "waiting"]


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    append_look(RunFolder(tmp_path), {"n": 1})
    assert [look["n"] for look in read_looks(RunFolder(tmp_path))] == [1]


def test_a_torn_line_does_not_swallow_the_next_look_and_is_told(tmp_path):
    run = RunFolder(tmp_path)
    append_look(run, {"n": 1})
    with run.ledger.open("a") as file:
        file.write('{"n":')
    append_look(run, {"n": 3})
    with pytest.raises(UserError, match=r"ledger\.jsonl, line 2"):
        read_looks(run)
    lines = run.ledger.read_text().splitlines()
    run.ledger.write_text("\n".join([lines[0], lines[2]]))
    assert [look["n"] for look in read_looks(run)] == [1, 3]


def test_no_number_that_json_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        append_look(RunFolder(tmp_path), {"roc_auc": float("nan")})
    assert read_looks(RunFolder(tmp_path)) == []


def test_an_empty_ledger_and_strange_characters(tmp_path):
    run = RunFolder(tmp_path)
    run.ledger.touch()
    assert read_looks(run) == []
    append_look(run, {"name": "line\u2028separator\x85\x1c and\nbreak"})
    assert [look["name"] for look in read_looks(run)] == ["line\u2028separator\x85\x1c and\nbreak"]


def test_predictions_are_those_of_the_last_look_or_refused(tmp_path):
    run = RunFolder(tmp_path)
    first, second = (
        Predictions(["a"], ["test"], ["g"], ["normal"], np.array([0]), None, np.array([chance]))
        for chance in (0.25, 0.75)
    )
    require_that_of_the_look(run, predictions_sha256(first))
    append_look(run, {"checkpoint": "of an earlier version"})
    require_that_of_the_look(run, predictions_sha256(first))
    append_look(run, {"predictions_sha256": predictions_sha256(first)})
    require_that_of_the_look(run, predictions_sha256(replace(first, group=("joined",))))
    with pytest.raises(UserError, match=r"test\.csv is not what look 2 at test gave, by its sha256 .* put that table"):
        require_that_of_the_look(run, predictions_sha256(second))


def test_looks_that_left_no_predictions_say_nothing_of_what_was_fixed(tmp_path):
    run = RunFolder(tmp_path)
    assert look_of_predictions(run) is None and not is_evaluated(run, 100, "one") and not has_fixed(run, 100, "one")
    run.operating_point.write_text("{}")
    assert has_fixed(run, 100, "one") and not is_evaluated(run, 100, "one")
    append_look(run, {"step": 100, "checkpoint_sha256": "one"})
    append_look(run, {"step": 200, "checkpoint_sha256": "two", "occluded": True})
    assert look_of_predictions(run)[0] == 1
    assert is_evaluated(run, 100, "one") and has_fixed(run, 100, "one")
    # another network of the same step, as training anew gives it, is another one
    for step, sha256 in ((200, "two"), (100, "two")):
        assert not is_evaluated(run, step, sha256) and not has_fixed(run, step, sha256)
    append_look(run, {"step": 300})  # by an earlier version
    assert is_evaluated(run, 300, "three") and not is_evaluated(run, 100, "one")
