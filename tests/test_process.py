import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxr_jax import process

ON_GLIBC = process.glibc_version() is not None and process.glibc_version() >= (2, 35)
needs_glibc = pytest.mark.skipif(not ON_GLIBC, reason="needs glibc 2.35 or later")

PROGRAM = """
import os, sys
from cxr_jax.process import configure_process
configure_process()
print(repr((sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), os.environ.get("JAX_COMPILATION_CACHE_DIR"))))
"""


def run_program(tmp_path, command, arguments, **environment):
    """Run PROGRAM, saved as module `program`, and return its arguments, tunables and cache folder."""
    (tmp_path / "program.py").write_text(PROGRAM)
    inherited = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    root = str(Path(process.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        env={**inherited, "PYTHONPATH": root, "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu", **environment},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == b""
    return eval(done.stdout)


AWKWARD = ["--a", "two words", "", "'quoted\"", "new\nline", "*", b"\xff\xfe", "--", "-m"]


@needs_glibc
@pytest.mark.parametrize("command", [["program.py"], ["-m", "program"], ["-X", "utf8", "program.py"]])
def test_restart_keeps_the_arguments_and_happens_once(tmp_path, command):
    arguments, tunables, _ = run_program(tmp_path, command, AWKWARD)
    assert [os.fsencode(argument) for argument in arguments] == [os.fsencode(argument) for argument in AWKWARD]
    assert tunables == "glibc.malloc.hugetlb=1"


@needs_glibc
def test_tunables_of_the_user_are_kept(tmp_path):
    _, tunables, _ = run_program(tmp_path, ["program.py"], [], GLIBC_TUNABLES="glibc.malloc.check=0")
    assert tunables == "glibc.malloc.check=0:glibc.malloc.hugetlb=1"
    _, tunables, _ = run_program(tmp_path, ["program.py"], [], GLIBC_TUNABLES="glibc.malloc.hugetlb=2")
    assert tunables == "glibc.malloc.hugetlb=2"


@pytest.mark.parametrize(
    "environment",
    [{"CXR_JAX_ALLOCATOR": "off"}, {"JAX_PLATFORMS": "cuda,cpu"}, {"CXR_JAX_RESTARTED": "1"}],
)
def test_no_restart_where_it_does_not_apply(tmp_path, environment):
    assert run_program(tmp_path, ["program.py"], ["a"], **environment)[:2] == (["a"], None)


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


def test_never_restarts_under_a_test_runner(monkeypatch):
    def refuse(*_):
        raise AssertionError("the test runner would be replaced")

    monkeypatch.setattr(os, "execve", refuse)
    environment = {}
    process.restart_with_huge_pages(environment)
    assert environment == {}


class ReplacedError(Exception):
    """Stands for the process that execve replaced."""


WATCHERS = ("pytest", "pydevd", "debugpy", "bdb", "coverage")


@pytest.fixture
def restart(monkeypatch):
    """Call restart_with_huge_pages as in a bare process on glibc; returns what execve was given, or None.

    `watcher` is a module of a program that watches this process; `error` is what the system answers.
    """

    def run(environment, version=(2, 36), watcher=None, error=ReplacedError):
        calls = []

        def execve(*given):
            calls.append(given)
            raise error

        with monkeypatch.context() as bare:
            for name in WATCHERS:
                bare.delitem(sys.modules, name, raising=False)
            if watcher:
                bare.setitem(sys.modules, watcher, os)
            bare.setattr(sys, "gettrace", lambda: None)
            bare.setattr(process, "glibc_version", lambda: version)
            bare.setattr(os, "execve", execve)
            with contextlib.suppress(ReplacedError):
                process.restart_with_huge_pages(environment)
        return calls[0] if calls else None

    return run


def test_restart_runs_the_same_command_line(restart, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "cxr_jax", "train"])
    program, argv, environment = restart({"A": "b"})
    assert program == argv[0] == sys.executable
    assert argv[1:] == ["-m", "cxr_jax", "train"]
    assert environment == {"A": "b", "CXR_JAX_RESTARTED": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert restart(environment) is None
    assert restart({"CXR_JAX_RESTARTED": "1"}) is None


@pytest.mark.parametrize("version", [None, (2, 34)])
def test_no_restart_without_a_glibc_that_knows_huge_pages(restart, version):
    assert restart({}, version) is None


def test_a_refused_restart_is_survived(restart):
    program, *_ = restart({}, error=PermissionError)
    assert program == sys.executable


@pytest.mark.parametrize("module", WATCHERS)
def test_a_debugger_is_noticed(restart, module):
    environment = {}
    assert restart(environment, watcher=module) is None
    assert environment == {}
    assert restart(environment) is not None


def test_other_c_libraries_have_no_glibc_version(monkeypatch):
    def unknown(name):
        raise ValueError(name)

    for confstr in (unknown, lambda name: None, lambda name: "musl 1.2"):
        monkeypatch.setattr(os, "confstr", confstr, raising=False)
        assert process.glibc_version() is None
        assert not process.allocator_applies({"JAX_PLATFORMS": "cpu"})
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.35", raising=False)
    assert process.glibc_version() == (2, 35)
    assert process.allocator_applies({"JAX_PLATFORMS": "cpu"})
    assert not process.allocator_applies({"JAX_PLATFORMS": "cpu", "CXR_JAX_ALLOCATOR": "off"})
    assert not process.allocator_applies({"JAX_PLATFORMS": "cuda"})


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


def test_a_system_without_mallopt_is_left_as_it_is(monkeypatch):
    calls = []

    class Library:
        def __init__(self, name):
            assert name is None

        def mallopt(self, option, value):
            calls.append((option, value))

    monkeypatch.setattr(ctypes, "CDLL", Library)
    process.keep_freed_memory()
    made = len(calls)
    assert made
    monkeypatch.delattr(Library, "mallopt")
    process.keep_freed_memory()
    assert len(calls) == made


KEEPS_MEMORY = """
import ctypes, re, threading
from cxr_jax.process import keep_freed_memory, release_freed_memory

def resident(name="VmRSS"):
    return int(re.search(name + r":\\s*(\\d+) kB", open("/proc/self/status").read())[1]) // 1024

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
keep_freed_memory()
blocks = [ctypes.c_void_p(library.malloc(2**20)) for _ in range(64)]
for block in blocks:
    ctypes.memset(block, 1, 2**20)
for block in blocks[:-1]:
    library.free(block)
kept = resident()
release_freed_memory()
print(kept - resident())

def take_and_free():
    library.free(ctypes.c_void_p(library.malloc(ctypes.c_size_t(3 * 2**30))))

def in_a_thread():
    thread = threading.Thread(target=take_and_free)
    thread.start()
    thread.join()

in_a_thread()
taken = resident("VmSize")
for _ in range(3):
    in_a_thread()
print(taken, resident("VmSize") - taken)
"""


@needs_glibc
def test_memory_is_kept_whatever_its_size_and_can_be_handed_back():
    done = subprocess.run([sys.executable, "-c", KEEPS_MEMORY], capture_output=True, check=True, text=True, timeout=120)
    handed_back, taken, more = map(int, done.stdout.split())
    assert handed_back > 48  # MB of 63
    # what a thread took for a moment, more than 2 GB, is there for the next one; nobody has touched it
    assert taken > 3072
    assert more < 256


def test_log_settings_of_the_user_are_kept():
    environment = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    process.quieten_libraries(environment)
    assert environment == {"TF_CPP_MIN_LOG_LEVEL": "0", "GRPC_VERBOSITY": "ERROR"}


@pytest.mark.parametrize("tunables", ["", "glibc.malloc.check=0"])
def test_the_environment_before_a_restart_can_be_had_back(restart, tunables):
    environment = {"A": "b", **({"GLIBC_TUNABLES": tunables} if tunables else {})}
    before = dict(environment)
    _, _, during = restart(environment)
    assert during != before
    assert process.before_restart(during) == before
    assert process.before_restart(before) == before


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
