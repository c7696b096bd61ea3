import dataclasses
import os
import sys

import pytest

from cxr_jax.bench import children
from cxr_jax.bench.cases import Case, DepthwiseCase, EpochCase
from cxr_jax.bench.children import Child, bare_environment, environment_of, start_case
from cxr_jax.errors import UserError
from cxr_jax.process import allocator_applies, glibc_version

TINY = Case("mobilenetv2_tiny", 32, 2, "inference", threads=1)


def interpreter(monkeypatch, tmp_path, script):
    """Let children run a shell script in place of Python."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 3", "the process ended with code 3: it wrote nothing"),
        ("echo first >&2; echo 'ImportError: no numpy' >&2; exit 1", "code 1: ImportError: no numpy"),
        ("kill -9 $$", "killed, most likely because memory ran out"),
        ("""read task; echo '{"failure": "no such model."}'""", r"^no such model\.$"),
    ],
)
def test_a_child_that_fails_says_why(monkeypatch, tmp_path, script, sentence):
    interpreter(monkeypatch, tmp_path, script)
    with pytest.raises(UserError, match=sentence):
        start_case(TINY, 1)


def test_a_child_that_dies_later_says_why(monkeypatch, tmp_path):
    interpreter(monkeypatch, tmp_path, """read task; echo '{"ready": {"a": 1}}'; exec >&-; exit 5""")
    with start_case(TINY, 1) as child:
        assert child.facts == {"a": 1}
        child._process.wait()
        with pytest.raises(UserError, match="ended with code 5"):
            child.ask({"steps": 1, "seconds": 0.0})


def test_no_child_is_left_behind(monkeypatch, tmp_path):
    interpreter(monkeypatch, tmp_path, "exec sleep 100")
    with pytest.raises(ZeroDivisionError), Child({}, os.environ, as_installed=True) as child:
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(child._process.pid, 0)


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


def test_ceilings_are_asked_of_a_child_as_installed(monkeypatch, tmp_path):
    interpreter(monkeypatch, tmp_path, """read task; echo "{\\"task\\": $task, \\"arguments\\": \\"$*\\"}" """)
    assert children.ask_ceilings(2) == {
        "task": {"ceilings": {"threads": 2}},
        "arguments": "-m cxr_jax.bench.worker as-installed",
    }


def test_rows_are_handed_on_until_the_last(monkeypatch, tmp_path):
    interpreter(
        monkeypatch, tmp_path, """read task; echo "{\\"row\\": $task}"; echo '{"row": {}}'; echo '{"rows": 2}'"""
    )
    case = DepthwiseCase("net", 32, 2, threads=1)
    first, last = children.ask_depthwise(case, 5.0)
    assert first == {"depthwise": dataclasses.asdict(case), "copy_bytes": 5.0}
    assert last == {}


def test_an_epoch_keeps_compiled_programs_as_any_training(monkeypatch, tmp_path):
    interpreter(
        monkeypatch,
        tmp_path,
        """read task; echo "{\\"task\\": $task, \\"cache\\": \\"$CXR_COMPILATION_CACHE\\", """
        """\\"devices\\": \\"$JAX_NUM_CPU_DEVICES\\"}" """,
    )
    case = EpochCase("net", 32, 2, 1, "few", devices=2)
    told = children.ask_epoch(case, {**os.environ, "CXR_COMPILATION_CACHE": "/kept"})
    assert told == {"task": {"epoch": dataclasses.asdict(case)}, "cache": "/kept", "devices": "2"}


def test_a_whole_case_in_its_child():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    with start_case(TINY, 1, environment) as child:
        taken = child.ask({"steps": 3, "seconds": 0.0})["seconds"]
        last = child.finish()
    assert len(taken) == 3
    assert all(seconds > 0 for seconds in taken)
    assert child.facts["cores"] == 1
    assert child.facts["devices"] == 1
    assert child.facts["flops"] > 1e5
    assert last["device_peak_bytes"] is None
    assert 50 * 2**20 < last["peak_memory_bytes"] < 4 * 2**30
    # the child sets the allocator itself, as the console entry point does
    if allocator_applies(environment) and glibc_version() >= (2, 35):
        assert child.facts["allocator"].endswith("glibc.malloc.hugetlb=1, freed memory kept")
