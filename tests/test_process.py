"""Settings of a process: caches of programs, what libraries print, how it ends, cores."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxr_jax import process
from tests.configured_program import run_program


def test_cache_folder_default_choice_and_switch(tmp_path):
    def cache(**environment):
        return run_program(tmp_path, ["program.py"], [], CXR_JAX_ALLOCATOR="off", **environment)[2]

    default = Path(cache())
    assert default.parent == tmp_path / ".cache" / "cxr_jax" / "compiled"
    assert default.is_dir()
    assert Path(cache(CXR_COMPILATION_CACHE="mine")).parent == tmp_path / "mine"
    assert cache(CXR_COMPILATION_CACHE="off") is None
    assert cache(JAX_COMPILATION_CACHE_DIR="/theirs") == "/theirs"


def test_small_programs_are_kept_too(tmp_path):
    """Without the setting jax would compile this one, of some milliseconds, at every start."""
    program = (
        "import os; from cxr_jax import process; process.use_compilation_cache(os.environ);"
        "import jax; jax.jit(lambda x: x * 3 + 1)(2.0).block_until_ready()"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", process.CACHE_SWITCH):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    kept = list((tmp_path / ".cache" / "cxr_jax" / "compiled").glob("*/*-cache"))
    assert kept
    chosen = {"HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "2"}
    process.use_compilation_cache(chosen)
    assert chosen["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "2"


def test_cache_is_left_off_where_it_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    environment = {process.CACHE_SWITCH: str(tmp_path / "file")}
    process.use_compilation_cache(environment)
    assert "JAX_COMPILATION_CACHE_DIR" not in environment


def test_a_gpu_counts_with_its_plugin_only(monkeypatch):
    present = {"/dev/nvidiactl"}
    monkeypatch.setattr(os.path, "exists", lambda path: path in present)
    plugins = {"jax_cuda13_plugin"}
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: name if name in plugins else None)
    assert process.has_accelerator({})
    assert not process.has_accelerator({"JAX_PLATFORMS": "cpu"})
    plugins.clear()
    assert not process.has_accelerator({})
    plugins.add("jax_cuda12_plugin")
    present.clear()
    assert not process.has_accelerator({})


def test_log_settings_of_the_user_are_kept():
    environment = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    process.quieten_libraries(environment)
    assert environment == {"TF_CPP_MIN_LOG_LEVEL": "0", "GRPC_VERBOSITY": "ERROR"}


def test_the_allocator_is_set_only_where_it_applies(monkeypatch):
    steps = []
    for name in ("quieten_libraries", "use_compilation_cache", "restart_with_huge_pages"):
        monkeypatch.setattr(process, name, lambda environment, name=name: steps.append(name))
    monkeypatch.setattr(process, "keep_freed_memory", lambda: steps.append("keep_freed_memory"))
    monkeypatch.setattr(process, "allocator_applies", lambda environment: True)
    process.configure_process()
    assert steps == ["quieten_libraries", "use_compilation_cache", "restart_with_huge_pages", "keep_freed_memory"]
    steps.clear()
    monkeypatch.setattr(process, "allocator_applies", lambda environment: False)
    process.configure_process()
    assert steps == ["quieten_libraries", "use_compilation_cache"]


def test_the_cache_is_kept_apart_for_each_processor(tmp_path, monkeypatch):
    def cache_of(flags):
        text = f"processor\t: 0\nflags\t\t: {flags}\n"
        monkeypatch.setattr(Path, "read_text", lambda self, encoding: text)
        environment = {process.CACHE_SWITCH: str(tmp_path)}
        process.use_compilation_cache(environment)
        return environment["JAX_COMPILATION_CACHE_DIR"]

    assert cache_of("sse2 avx2") == cache_of("sse2 avx2") != cache_of("sse2 avx2 avx512f")


def test_a_processor_without_proc_has_a_name_too(tmp_path, monkeypatch):
    def absent(self, encoding):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    environment = {process.CACHE_SWITCH: str(tmp_path)}
    process.use_compilation_cache(environment)
    assert Path(environment["JAX_COMPILATION_CACHE_DIR"]).parent == tmp_path
    switched_off = {process.CACHE_SWITCH: "off"}
    process.use_compilation_cache(switched_off)
    assert "JAX_COMPILATION_CACHE_DIR" not in switched_off


def run_code(code: str, **environment: str) -> subprocess.CompletedProcess:
    root = str(Path(process.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_process_leaves_through_the_clean_up_unless_told_otherwise():
    code = "import atexit, sys; from cxr_jax import process; atexit.register(print, 'cleaned up'); print('said'); {} "
    code += "sys.exit(process.leave_with(7))"
    done = run_code(code.format(""))
    assert (done.returncode, done.stdout) == (7, "said\ncleaned up\n")
    done = run_code(code.format("process.leave_without_cleanup();"))
    assert (done.returncode, done.stdout) == (7, "said\n")


def test_an_abort_leaves_another_thread_time_to_say_why():
    code = """
import ctypes, os, threading
from cxr_jax.process import delay_aborts
{}
def say():
    os.write(2, b"process 0 is gone")
    os._exit(69)
threading.Timer(1.0, say).start()
ctypes.CDLL(None).abort()
"""
    done = run_code(code.format("delay_aborts()"))
    assert (done.returncode, done.stderr) == (69, "process 0 is gone")
    # what it is there for
    assert run_code(code.format("")).returncode == -signal.SIGABRT


@pytest.mark.parametrize(("asked", "shown"), [({}, ""), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "a greeting")])
def test_what_libraries_print_from_c_is_shown_only_to_those_who_asked(asked, shown):
    code = """
import os, sys
from cxr_jax.process import leave_terminal_to_python
leave_terminal_to_python(os.environ)
os.write(1, b"a greeting"); os.write(2, b"a greeting")
print(" and a word", end=""); print(" and an error", end="", file=sys.stderr)
"""
    done = run_code(code, **asked)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{shown} and a word", f"{shown} and an error")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_a_process_that_is_started_keeps_to_its_cores():
    before = os.sched_getaffinity(0)
    with process.on_cores([min(before)]):
        assert os.sched_getaffinity(0) == {min(before)}
        assert process.available_cores() == 1
    assert os.sched_getaffinity(0) == before
    with process.on_cores(None):
        assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc/self/statm")
def test_peak_memory_is_in_bytes_and_above_what_is_resident():
    block = np.ones(64 * 2**20, np.uint8)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = process.peak_memory_bytes()
    assert block.nbytes < 0.98 * resident <= peak < 64 * 2**30
    del block
    # the kernel counts to a few pages a thread
    assert process.peak_memory_bytes() >= 0.99 * peak
