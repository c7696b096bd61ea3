"""Settings of the whole process, made before jax is imported: memory allocator, compilation cache, log noise.

XLA on CPU takes its temporary buffers anew at every step. glibc by default hands them back to the kernel in between and
faults them in again page by page, which costs a training step about a third of its time. Four `mallopt` settings
together with huge pages keep the memory; the numbers that a program computes do not change.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import re
import signal
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from pathlib import Path

Environment = MutableMapping[str, str]

ALLOCATOR_SWITCH = "CXR_JAX_ALLOCATOR"
"""Set to `off`, it leaves the memory allocator as it is."""

CACHE_SWITCH = "CXR_COMPILATION_CACHE"
"""Folder for compiled programs in place of ~/.cache/cxr_jax/compiled, or `off`."""

KERNELS_SWITCH = "CXR_NATIVE_KERNELS"
"""Folder for the native kernels in place of ~/.cache/cxr_jax/native, or `off`."""

_RESTARTED = "CXR_JAX_RESTARTED"
_cleans_up = True
_HUGE_PAGES = "glibc.malloc.hugetlb=1"
_FIRST_GLIBC_WITH_HUGE_PAGES = (2, 35)

# Option numbers of <malloc.h>, and the values that keep freed memory in the process. The threshold -1 is for never: the
# largest number, 2 GB, is less than what a step of a larger network takes. One arena serves all threads, because XLA's
# temporary buffers are taken by a thread whose own arena cannot grow that far.
_MALLOPT = {
    "M_MMAP_MAX": (-4, 0),
    "M_TRIM_THRESHOLD": (-1, -1),
    "M_ARENA_MAX": (-8, 1),
    "M_TOP_PAD": (-2, 256 * 2**20),
}


def configure_process() -> None:
    """Applies every setting that suits this machine. For the console entry point alone: the process may start anew.

    Settings that the user has made in the environment are kept.
    """
    environment = os.environ
    quieten_libraries(environment)
    use_compilation_cache(environment)
    if allocator_applies(environment):
        restart_with_huge_pages(environment)
        keep_freed_memory()


def leave_without_cleanup() -> None:
    """Has the console command end this process at once, with its exit code, instead of through Python's clean-up.

    For a process that would wait there for others that are gone.
    """
    global _cleans_up
    _cleans_up = False


def leave_with(code: int) -> int:
    """Returns `code`, for the interpreter to end with; or never, if the process is to be left without clean-up."""
    if not _cleans_up:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def leave_terminal_to_python(environment: Mapping[str, str]) -> None:
    """Shows nothing that libraries print from C++, unless the user asked for their logs.

    Processes that train together greet each other there, and log every loss of one at length.
    """
    asked = environment.get("TF_CPP_MIN_LOG_LEVEL", "3") in ("0", "1") or "NCCL_DEBUG" in environment
    if asked:
        return
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # a stream that is not a file, as under a test runner, stays
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            number = stream.fileno()
            own = os.fdopen(os.dup(number), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            setattr(sys, name, own)


def delay_aborts() -> None:
    """Holds up a library that aborts this process for some seconds, in which another thread may say why it ends.

    jax aborts as soon as it misses its coordinator, which Python gets no chance to handle.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    # the handler is sleep itself, which may be called there, as Python may not; it sleeps for the signal's number
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def quieten_libraries(environment: Environment) -> None:
    """Leaves out what libraries log from C++, and orbax and asyncio from other threads.

    A user of the command line has nothing to act on there: XLA frames a slow compilation in asterisks, orbax announces
    every step of a save and prints tracebacks of a failed one, which is raised as an error besides.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # a file's name may be in a script that the font of figures lacks
    warnings.filterwarnings("ignore", "Glyph .* missing from font")
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("GRPC_VERBOSITY", "ERROR")


def use_compilation_cache(environment: Environment) -> None:
    """Has jax keep compiled programs in a folder that can be written, unless the user chose otherwise."""
    chosen = environment.get(CACHE_SWITCH, "")
    if chosen == "off" or "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    try:
        root = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "cxr_jax" / "compiled"
        # Code compiled for one processor may not run on another that shares the home folder.
        folder = root.absolute() / processor_digest()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        # No home folder, or one that cannot be written: programs are compiled at every start.
        return
    if os.access(folder, os.W_OK):
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        # jax keeps what took a second to compile; before the first step there are over a hundred smaller programs
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def allocator_applies(environment: Environment) -> bool:
    """Returns True where the allocator settings help: glibc on Linux, computing on the CPU, and not switched off."""
    if environment.get(ALLOCATOR_SWITCH) == "off" or glibc_version() is None:
        return False
    return not has_accelerator(environment)


def glibc_version() -> tuple[int, int] | None:
    """Returns the version of the GNU C library that the process runs on; None with any other C library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, OSError, ValueError):
        return None
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if name == "glibc" and match else None


def restart_with_huge_pages(environment: Environment) -> None:
    """Starts this very command line again with glibc's huge pages on; returns where that is impossible or done.

    glibc reads its tunables before the program begins, so a running process cannot set them for itself.
    """
    tunables = environment.get("GLIBC_TUNABLES", "")
    version = glibc_version()
    if (
        _RESTARTED in environment
        or "glibc.malloc.hugetlb" in tunables
        or version is None
        or version < _FIRST_GLIBC_WITH_HUGE_PAGES
        or _is_watched()
    ):
        return
    environment[_RESTARTED] = "1"
    environment["GLIBC_TUNABLES"] = f"{tunables}:{_HUGE_PAGES}" if tunables else _HUGE_PAGES
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(environment))
    except OSError:
        # The settings only save time; without them the command runs all the same.
        return


def before_restart(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns `environment` as it was before `restart_with_huge_pages`, for a child that is to choose for itself."""
    before = dict(environment)
    if before.pop(_RESTARTED, None) is not None:
        tunables = before.pop("GLIBC_TUNABLES", "").removesuffix(_HUGE_PAGES).removesuffix(":")
        if tunables:
            before["GLIBC_TUNABLES"] = tunables
    return before


def keep_freed_memory() -> None:
    """Tells glibc's allocator to keep what is freed instead of handing it back to the kernel."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _MALLOPT.values():
            mallopt(option, value)


def release_freed_memory() -> None:
    """Hands back to the kernel what the allocator has kept so far: compiling leaves hundreds of MB that no step needs.

    Nothing happens with another C library than glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _is_watched() -> bool:
    """Returns True under a test runner, a debugger or a tracer, which a restart would throw out of the process."""
    watchers = {"pytest", "pydevd", "debugpy", "bdb", "coverage"}
    return sys.gettrace() is not None or not watchers.isdisjoint(sys.modules) or not sys.executable


def has_accelerator(environment: Environment) -> bool:
    """Returns whether jax would compute on a GPU or TPU; found out without importing it."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] != "cpu"
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
    devices = ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
    return any(map(os.path.exists, devices)) and any(map(importlib.util.find_spec, plugins))


def available_cores() -> int:
    """Returns how many cores this process may use, which under containers is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def on_cores(cores: Collection[int] | None) -> Iterator[None]:
    """Holds this thread to `cores` in the block; a process that is started there keeps to them. None: as it is."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peak_memory_bytes() -> int:
    """Returns the largest resident set that this process has had, in bytes, nothing subtracted.

    Linux keeps the mark of the program itself; its `ru_maxrss`, used elsewhere, also counts the program that ran in
    the process before it was replaced.
    """
    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if match:
        return int(match[1]) * 1024
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def processor_digest() -> str:
    """Returns a short name that differs between processors with different instructions."""
    described = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        described += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        described += platform.processor()
    return hashlib.sha256(described.encode()).hexdigest()[:12]
