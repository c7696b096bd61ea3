"""Locks that end with their process, and what killed processes leave: with real processes that are really killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from cxr_jax.errors import UserError
from cxr_jax.runs import files, locks
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.locks import evaluating, held, remove_stale

HOLDER = """
import sys, time
from pathlib import Path
from cxr_jax.runs.locks import held
with held(Path(sys.argv[1]), "busy", shared=sys.argv[2] == "shared"):
    print("holding", flush=True)
    time.sleep(1000)
"""


@contextlib.contextmanager
def holder(path, how="alone"):
    """Another process that holds `path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), how], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"holding\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_process_is_told_and_a_killed_one_lets_go(tmp_path):
    with holder(tmp_path) as process:
        with pytest.raises(UserError, match="somebody is at it"), held(tmp_path, "somebody is at it"):
            pytest.fail("held twice")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with held(tmp_path, "somebody is at it"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_readers_share_and_a_writer_waits(tmp_path):
    run = RunFolder(tmp_path)
    with evaluating(run, reading=True), evaluating(run, reading=True):  # noqa: SIM117 (one line too long)
        with pytest.raises(UserError, match="is evaluating or publishing"), evaluating(run):
            pytest.fail("written while it is read")
    with evaluating(run), pytest.raises(UserError, match="is evaluating"), evaluating(run, reading=True):
        pytest.fail("read while it is written")


def test_a_file_system_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("no locks here")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with held(tmp_path, "busy"), held(tmp_path, "busy"):
        (tmp_path / "written").write_text("inside")
    assert (tmp_path / "written").read_text() == "inside"


def aged(path, seconds=3600):
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_only_what_is_stale_is_removed(tmp_path):
    def unfinished(token, name="data"):
        folder = tmp_path / f"{files.TEMPORARY_PREFIX}{token}-{name}"
        folder.mkdir()
        (folder / "part").write_text("x")
        return aged(folder)

    stale, young, in_use = unfinished("00000000"), unfinished("11111111"), unfinished("22222222")
    aged(young, 5)
    stale_file = tmp_path / f"{files.TEMPORARY_PREFIX}33333333-a.npy"
    stale_file.write_text("x")
    aged(stale_file)
    kept = [tmp_path / "data", tmp_path / f"{files.TEMPORARY_PREFIX}ChestXRay2017.zip"]  # a download to be continued
    for path in kept:
        path.write_text("x")
        aged(path)
    with holder(in_use):
        assert remove_stale(tmp_path) == [stale, stale_file]
        assert sorted(tmp_path.iterdir()) == sorted([young, in_use, *kept])
        assert (in_use / "part").read_text() == "x"
    assert remove_stale(tmp_path) == [in_use]
    assert remove_stale(tmp_path / "nowhere") == []
