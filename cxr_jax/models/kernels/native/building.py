"""The shared libraries of the native kernels: found, or compiled for the processor at hand, in the background too.

Nothing here needs jax, so that compilers can begin before it is imported. The C++ in `source` is compiled by whatever
compiler there is, and kept beside the compiled programs.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jaxlib

from cxr_jax.process import KERNELS_SWITCH, processor_digest
from cxr_jax.runs.files import TEMPORARY_PREFIX

COMPILER_SECONDS = 300
VERSION_SECONDS = 60
NO_COMPILER = "there is no C++ compiler (g++ or clang++)"
COMMON = "kernels"
"""The library that every network needs."""

UNITS = {
    COMMON: ("channels.cc", "convolutions.cc", "depthwise.cc"),
    "any_depthwise": ("any_depthwise.cc",),
    "inverted_residual": ("inverted_residual.cc",),
    "pooling": ("pooling.cc",),
}
"""What each library is compiled from, and `SHARED` besides: each takes seconds, and few networks need them all."""

SHARED = "shared.cc"

INSTRUCTIONS = {"avx512_bf16": "__AVX512BF16__", "avx512": "__AVX512F__", "avx2": "__AVX2__", "neon": "__aarch64__"}
"""The instructions that the kernels are written for, and the macro by which a compiler says that it uses them."""


def kernel_instructions() -> str:
    """Returns which of `INSTRUCTIONS` the kernels use here, or `other`; empty if they cannot be compiled.

    The compiler is asked, which takes some milliseconds; nothing is built. CXX may name another processor than this.
    """
    try:
        compiler = _compiler()
        macros = Compilers().answer(
            [*compiler, *_flags(compiler[1:]), "-dM", "-E", "-x", "c++", os.devnull], VERSION_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    defined = {line.split()[1] for line in macros.splitlines() if line.startswith("#define ")}
    return next((name for name, macro in INSTRUCTIONS.items() if macro in defined), "other")


def kernels_folder() -> Path | None:
    """Returns where the libraries are kept; None if there is no home folder."""
    chosen = os.environ.get(KERNELS_SWITCH, "")
    try:
        return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "cxr_jax" / "native"
    except RuntimeError:
        return None


def built(name: str, folder: Path) -> Path:
    """Returns the shared library `name`, built unless it is there already; raises OSError, CalledProcessError or
    TimeoutExpired if it cannot be.

    One that is being built in the background is waited for.
    """
    begun = _begun.pop((name, folder), None)
    return _built(name, folder, Compilers()) if begun is None else begun.result()


def begin_to_build(name: str, folder: Path) -> None:
    """Begins to build the library `name` in the background, unless it is there already or was begun before.

    What goes wrong is raised by `built`. The compilers end with this process.
    """
    if (name, folder) not in _begun:
        _begun[name, folder] = _Build(name, folder)
        _begun[name, folder].start()


class _Build(threading.Thread):
    """A library that is being built; ended with the process, which does not wait for it."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(daemon=True)
        self._library, self._folder, self._compilers = name, folder, Compilers()
        self._made: Path | Exception | None = None
        atexit.register(self._leave)

    def run(self) -> None:
        try:
            self._made = _built(self._library, self._folder, self._compilers)
        except Exception as error:
            self._made = error

    def result(self) -> Path:
        self.join()
        if isinstance(self._made, Exception):
            raise self._made
        return self._made

    def _leave(self) -> None:
        self._compilers.end()
        self.join()


_begun: dict[tuple[str, Path], _Build] = {}


def _built(name: str, folder: Path, compilers: Compilers) -> Path:
    """Returns the shared library, built unless it is there already; raises OSError, CalledProcessError or
    TimeoutExpired if it cannot be.
    """
    compiler = _compiler()
    version = compilers.answer([*compiler, "--version"], VERSION_SECONDS)
    sources = {entry.name: entry.read_bytes() for entry in resources.files(__package__).joinpath("source").iterdir()}
    command = [*compiler, *_flags(compiler[1:])]
    # the headers are those of jaxlib: where they lie makes no other library
    described = [name, *command, version, jaxlib.__version__, processor_digest()]
    digest = hashlib.sha256("\0".join(described).encode())
    for source in sorted(sources):
        digest.update(source.encode() + b"\0" + sources[source])
    library = folder / f"{digest.hexdigest()[:24]}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder) as work:
        for source, text in sources.items():
            Path(work, source).write_bytes(text)
        made = Path(work, "kernels.so")
        units = [Path(work, unit) for unit in (*UNITS[name], SHARED)]
        objects = [str(unit.with_suffix(".o")) for unit in units]
        compiling = [*command, "-isystem", str(Path(jaxlib.__file__).with_name("include")), "-c"]
        commands = [[*compiling, str(unit), "-o", object_] for unit, object_ in zip(units, objects, strict=True)]
        compilers.run_together(commands, work)
        compilers.answer([*compiler, "-shared", *objects, "-o", str(made)], COMPILER_SECONDS, work)
        with made.open("rb") as file:
            # without this a power cut can leave the new name with half the library
            os.fsync(file.fileno())
        # two processes may build it at once: either may win, and nobody loads half of it
        made.replace(library)
    return library


def _compiler() -> list[str]:
    """Returns a C++ compiler: what CXX names, options and all, else the first of the usual ones; OSError if there
    is none.
    """
    chosen = os.environ.get("CXX", "")
    for command in ([chosen], chosen.split(), ["g++"], ["clang++"], ["c++"]):
        found = shutil.which(command[0]) if command else None
        if found:
            return [found, *command[1:]]
    raise OSError(NO_COMPILER)


def _flags(chosen: Sequence[str]) -> list[str]:
    """Returns the options of the build; for the processor at hand, unless `chosen`, the user's own options, name
    another.
    """
    machine = platform.machine()
    if any(option.startswith(("-march=", "-mcpu=")) for option in chosen):
        processor = []
    elif machine in ("arm64", "aarch64"):
        processor = ["-mcpu=native"]
    else:
        processor = ["-march=native"]
    wide = ["-mprefer-vector-width=512"] if machine == "x86_64" else []
    return ["-std=c++17", "-O3", *processor, *wide, "-DNDEBUG", "-Wno-psabi", "-fPIC", "-fvisibility=hidden"]


class Compilers:
    """Runs of the compiler, which can be ended together, with all that they started."""

    def __init__(self) -> None:
        # in one language: its version names the library, and its errors are searched for that word
        self._environment = {**os.environ, "LC_ALL": "C"}
        self._running: set[subprocess.Popen] = set()
        self._ended = False

    def answer(self, command: list[str], seconds: float, scratch: str = "") -> str:
        """Returns what the compiler answers; its temporary files lie in `scratch`, where that is given.

        Raises OSError, CalledProcessError, or TimeoutExpired after so many seconds.
        """
        compiler = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=self._environment | ({"TMPDIR": scratch} if scratch else {}),
            # g++ leaves the work to other programs, which would go on when it alone is ended
            process_group=0,
        )
        with compiler:
            try:
                self._running.add(compiler)
                if self._ended:
                    _end(compiler)
                answer, errors = compiler.communicate(timeout=seconds)
            except BaseException:
                _end(compiler)
                raise
            finally:
                self._running.discard(compiler)
        if compiler.returncode:
            raise subprocess.CalledProcessError(compiler.returncode, command, answer, errors)
        return answer

    def run_together(self, commands: Sequence[list[str]], scratch: str) -> None:
        """Runs compilers side by side, each of which keeps a core busy for some seconds.

        Where one fails, or this is interrupted, the others are ended. Raises as `answer` does.
        """
        failures: list[Exception] = []

        def run(command: list[str]) -> None:
            try:
                self.answer(command, COMPILER_SECONDS, scratch)
            except Exception as error:
                failures.append(error)
                self.end()

        # daemons: the end of the process waits for no others of its threads, and ends the compilers
        threads = [threading.Thread(target=run, args=(command,), daemon=True) for command in commands]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            self.end()
            raise
        if failures:
            raise failures[0]

    def end(self) -> None:
        """Ends those that run, and those that are started from now on."""
        self._ended = True
        for compiler in list(self._running):
            _end(compiler)


def _end(compiler: subprocess.Popen) -> None:
    """Ends a compiler with all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(compiler.pid, signal.SIGKILL)
