"""The compiled kernels: found or built once for each processor and version, loaded, and made known to XLA.

The C++ in `source` is compiled for the processor at hand by whatever compiler there is, and kept beside the compiled
programs. Without a compiler, or where one fails, nothing is lost but speed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import jax
import jaxlib

from cxr_jax.process import KERNELS_SWITCH, processor_digest
from cxr_jax.runs.files import TEMPORARY_PREFIX

COMPILER_SECONDS = 300
VERSION_SECONDS = 60
NO_COMPILER = "there is no C++ compiler (g++ or clang++)"
HANDLERS = (
    "statistics",
    "normalise",
    "normalise_gradient_sums",
    "normalise_gradient",
    "depthwise",
    "depthwise_input",
    "depthwise_kernel",
    "any_depthwise",
    "any_depthwise_input",
    "any_depthwise_kernel",
    "convolution",
    "convolution_input",
    "convolution_kernel",
    "normalised_depthwise",
    "normalised_depthwise_kernel",
    "normalised_convolution",
    "normalised_convolution_kernel",
    "activated_input",
    "max_pool",
    "max_pool_places",
    "max_pool_input",
    "average_pool",
    "average_pool_input",
)
_PREFIX = "cxr_jax_"

INSTRUCTIONS = {"avx512_bf16": "__AVX512BF16__", "avx512": "__AVX512F__", "avx2": "__AVX2__", "neon": "__aarch64__"}
"""The instructions that the kernels are written for, and the macro by which a compiler says that it uses them."""


def native_kernels_work() -> bool:
    """Returns whether the kernels are there to be used; builds and loads them at the first call."""
    return not why_not()


def why_not() -> str:
    """Returns why there are no kernels, as a sentence; empty if there are. Builds and loads them at the first call."""
    return f"{KERNELS_SWITCH} is off" if os.environ.get(KERNELS_SWITCH) == "off" else _load(_folder())


@functools.cache
def _load(folder: Path | None) -> str:
    """Builds the library in `folder` unless it is there, loads it and tells XLA; returns why that failed, if it did."""
    if folder is None:
        return "there is no home folder to keep the native kernels in"
    try:
        library = ctypes.CDLL(str(_built(folder)))
        handlers = {name: getattr(library, _PREFIX + name) for name in HANDLERS}
    except subprocess.CalledProcessError as error:
        return f"the C++ compiler failed: {_first_error(error.stderr)}"
    except subprocess.TimeoutExpired as error:
        return f"the C++ compiler took longer than {error.timeout:g} seconds, and was ended"
    except (OSError, AttributeError) as error:
        return " ".join(str(error).split())
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(_PREFIX + name, jax.ffi.pycapsule(handler), platform="cpu")
    return ""


def kernel_instructions() -> str:
    """Returns which of `INSTRUCTIONS` the kernels use here, or `other`; empty if they cannot be compiled.

    The compiler is asked, which takes some milliseconds; nothing is built. CXX may name another processor than this.
    """
    try:
        compiler = _compiler()
        macros = _Compilers().answer(
            [*compiler, *_flags(compiler[1:]), "-dM", "-E", "-x", "c++", os.devnull], VERSION_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    defined = {line.split()[1] for line in macros.splitlines() if line.startswith("#define ")}
    return next((name for name, macro in INSTRUCTIONS.items() if macro in defined), "other")


def target(name: str) -> str:
    """Returns the name by which XLA knows the handler `name`."""
    return _PREFIX + name


def _built(folder: Path) -> Path:
    """Returns the shared library, built unless it is there already; raises OSError or CalledProcessError if it
    cannot be.
    """
    compiler = _compiler()
    version = _Compilers().answer([*compiler, "--version"], VERSION_SECONDS)
    sources = {entry.name: entry.read_bytes() for entry in resources.files(__package__).joinpath("source").iterdir()}
    command = [*compiler, *_flags(compiler[1:])]
    # the headers are those of jaxlib: where they lie makes no other library
    described = [*command, version, jaxlib.__version__, processor_digest()]
    digest = hashlib.sha256("\0".join(described).encode())
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name])
    library = folder / f"{digest.hexdigest()[:24]}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder) as work:
        for name, text in sources.items():
            Path(work, name).write_bytes(text)
        built = Path(work, "kernels.so")
        units = sorted(Path(work).glob("*.cc"))
        objects = [str(unit.with_suffix(".o")) for unit in units]
        compiling = [*command, "-isystem", jax.ffi.include_dir(), "-c"]
        compilers = _Compilers(work)
        compilers.run_together([[*compiling, str(unit), "-o", made] for unit, made in zip(units, objects, strict=True)])
        compilers.answer([*compiler, "-shared", *objects, "-o", str(built)], COMPILER_SECONDS)
        with built.open("rb") as file:
            # without this a power cut can leave the new name with half the library
            os.fsync(file.fileno())
        # two processes may build it at once: either may win, and nobody loads half of it
        built.replace(library)
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
    return ["-std=c++17", "-O3", *processor, *wide, "-DNDEBUG", "-Wno-psabi", "-fPIC"]


class _Compilers:
    """Runs of the compiler, which can be ended together, with all that they started."""

    def __init__(self, scratch: str | None = None) -> None:
        """Has their temporary files lie in `scratch`, where that is given."""
        # in one language: its version names the library, and its errors are searched for that word
        self._environment = {**os.environ, "LC_ALL": "C"} | ({"TMPDIR": scratch} if scratch else {})
        self._running: set[subprocess.Popen] = set()
        self._ended = False

    def answer(self, command: list[str], seconds: float) -> str:
        """Returns what the compiler answers; raises OSError, CalledProcessError, or TimeoutExpired after so many
        seconds.
        """
        compiler = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=self._environment,
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

    def run_together(self, commands: Sequence[list[str]]) -> None:
        """Runs compilers side by side, each of which keeps a core busy for some seconds.

        Where one fails, or this is interrupted, the others are ended. Raises as `answer` does.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                list(pool.map(lambda command: self.answer(command, COMPILER_SECONDS), commands))
            except BaseException:
                self._ended = True
                pool.shutdown(wait=False, cancel_futures=True)
                for compiler in list(self._running):
                    _end(compiler)
                raise


def _end(compiler: subprocess.Popen) -> None:
    """Ends a compiler with all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(compiler.pid, signal.SIGKILL)


def _folder() -> Path | None:
    """Returns where the library is kept; None if there is no home folder."""
    chosen = os.environ.get(KERNELS_SWITCH, "")
    try:
        return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "cxr_jax" / "native"
    except RuntimeError:
        return None


def _first_error(text: str | None) -> str:
    """Returns the line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no message")[:200]
