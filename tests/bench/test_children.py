import dataclasses
import os
import sys
import time
from pathlib import Path

import pytest

from cxr_jax.bench.cases import Case, Effort
from cxr_jax.bench.children import bare_environment, environment_of, start_case, worker
from cxr_jax.errors import UserError

TINY = Case("mobilenetv2_tiny", 32, 2, "inference", threads=1)
EFFORT = Effort(rounds=1, steps=1, seconds=0.0, limit=100.0)


@pytest.fixture
def interpreter(monkeypatch, tmp_path):
    """Let children run a shell script in place of Python."""

    def install(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return install


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 3", "the process ended with code 3: it wrote nothing"),
        ("echo first >&2; echo 'ImportError: no numpy' >&2; exit 1", "code 1: ImportError: no numpy"),
        ("kill -9 $$", "killed, most likely because memory ran out"),
        ("""read task; echo '{"failure": "no such model."}'""", r"^no such model\.$"),
    ],
)
def test_a_child_that_fails_says_why(interpreter, script, sentence):
    interpreter(script)
    with pytest.raises(UserError, match=sentence), start_case(TINY, EFFORT):
        pass


def test_a_child_that_dies_later_says_why(interpreter):
    interpreter("""read task; echo '{"ready": {"a": 1}}'; read turn; exit 5""")
    with start_case(TINY, EFFORT) as child:
        assert child.facts == {"a": 1}
        with pytest.raises(UserError, match="ended with code 5"):
            child.ask({"steps": 1, "seconds": 0.0}, 100.0)
        assert child.failed


def test_a_child_that_hangs_is_ended_with_all_that_it_started(interpreter, tmp_path):
    """The limit holds for the start and for a turn; the processes of torch.compile go with their parent."""
    helper, outlived = tmp_path / "helper", tmp_path / "outlived"
    interpreter(f"""sleep 300 & echo $! >{helper}; read task; echo '{{"ready": {{}}}}'; sleep 300; touch {outlived}""")
    with start_case(TINY, EFFORT) as child, pytest.raises(UserError, match=r"^did not finish a turn in 0\.2 s$"):
        child.ask({"steps": 1, "seconds": 0.0}, 0.2)
    assert not outlived.exists()
    pid = int(helper.read_text())
    deadline = time.monotonic() + 60
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)
    interpreter("sleep 300")
    limited = dataclasses.replace(EFFORT, limit=0.2)
    with pytest.raises(UserError, match=r"^did not compile and warm up in 0\.2 s$"), start_case(TINY, limited):
        pass


def _runs(pid: int) -> bool:
    """A zombie, which a container without an init keeps, does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_child_is_left_behind(interpreter, tmp_path):
    interpreter(f"echo $$ >{tmp_path}/pid; read task; echo '{{}}'; exec sleep 300")
    with pytest.raises(ZeroDivisionError), worker(os.environ, 1) as child:
        child.ask({})
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_children_begin_with_the_environment_of_the_user():
    ours = {"CXR_JAX_RESTARTED": "1", "JAX_COMPILATION_CACHE_DIR": "/cache", "HOME": "/home"}
    kept = {"HOME": "/home", "CXR_COMPILATION_CACHE": "off", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    huge = "glibc.malloc.hugetlb=1"
    assert bare_environment({**ours, "GLIBC_TUNABLES": huge}) == kept
    mixed = {**ours, "GLIBC_TUNABLES": f"glibc.malloc.check=0:{huge}"}
    assert bare_environment(mixed) == {**kept, "GLIBC_TUNABLES": "glibc.malloc.check=0"}
    # without a restart the tunable is the user's own
    theirs = {"HOME": "/home", "GLIBC_TUNABLES": huge, "XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    assert bare_environment(theirs) == {**kept, **theirs}


def test_environment_of_a_case():
    preloaded = Case("net", 32, 2, "train", threads=1, implementation="timm", backend="eager", preload="/a.so")
    assert environment_of(preloaded, {"LD_PRELOAD": "/b.so"})["LD_PRELOAD"] == "/a.so"
    assert environment_of(TINY, {"LD_PRELOAD": "/b.so"})["LD_PRELOAD"] == "/b.so"
    shared = Case("net", 32, 2, "train", threads=1, devices=2)
    assert environment_of(shared, {})["JAX_NUM_CPU_DEVICES"] == "2"
    assert "JAX_NUM_CPU_DEVICES" not in environment_of(TINY, {})
    compiling = dataclasses.replace(preloaded, backend="compile")
    assert environment_of(compiling, {})["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] == "1"
