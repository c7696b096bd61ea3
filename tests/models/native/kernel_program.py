"""The kernels as a program of their own, for any processor that can be compiled for and run here."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jaxlib
import ml_dtypes
import numpy as np
import pytest

from cxr_jax.models.kernels.native import library

SOURCE = Path(library.__file__).with_name("source")
DRIVER = Path(__file__).with_name("driver")
KEPT_FOLDER = "kernel_programs"


@dataclass(frozen=True)
class Target:
    """A way to build the program, and to run it."""

    compiler: str
    options: tuple[str, ...]
    needs: tuple[str, ...] = ()  # features of the processor, as /proc/cpuinfo names them
    runner: tuple[str, ...] = ()  # what runs the program, where this processor cannot

    def why_not(self) -> str:
        """Returns why this target cannot be built and run here; empty if it can."""
        for program in (self.compiler, *self.runner[:1]):
            if shutil.which(program) is None:
                return f"{program} is not installed"
        if any(option.startswith("-march=") for option in self.options) and platform.machine() != "x86_64":
            return f"this processor is {platform.machine()}, not x86_64"
        missing = set(self.needs) - processor_features()
        return f"this processor has no {', '.join(sorted(missing))}" if missing else ""


def processor_features() -> set[str]:
    """Returns what /proc/cpuinfo says that this processor has; nothing where there is no such file."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return {word for line in lines if line.startswith("flags") for word in line.split()}


class KernelProgram:
    """The running program; calls handlers by name."""

    def __init__(self, target: Target, threads: int = 1) -> None:
        command = [*target.runner, str(_built(target)), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def call(self, name: str, operands: Sequence[Any], results: Sequence[np.ndarray], *numbers: int) -> str:
        """Calls the handler with `operands`, fills `results` and returns its error, empty if there is none."""
        return self.call_with(name, operands, results, dict(zip(_names(name, len(numbers)), numbers, strict=True)))

    def call_with(
        self, name: str, operands: Sequence[Any], results: Sequence[np.ndarray], numbers: Mapping[str, int]
    ) -> str:
        """Calls as `call` does, with `numbers` by their names."""
        ask = self._process.stdin
        ask.write(f"cxr_jax_{name}\n".encode() + _number(len(operands)))
        for operand in operands:
            ask.write(_described(operand) + np.ascontiguousarray(operand).tobytes())
        ask.write(_number(len(results)))
        for result in results:
            ask.write(_described(result))
        ask.write(_number(len(numbers)))
        for word, value in numbers.items():
            ask.write(_number(len(word)) + word.encode() + _number(value))
        try:
            ask.flush()
        except BrokenPipeError:
            pytest.fail(self._last_words())
        length = int(np.frombuffer(self._answer(8), np.int64)[0])
        if length:
            return self._answer(length).decode()
        for result in results:
            result[...] = np.frombuffer(self._answer(result.nbytes), result.dtype).reshape(result.shape)
        return ""

    def _answer(self, count: int) -> bytes:
        answer = self._process.stdout.read(count)
        if len(answer) != count:
            pytest.fail(self._last_words())
        return answer

    def _last_words(self) -> str:
        self._process.stdin.close()
        return f"the program ended: {self._process.stderr.read().decode(errors='replace')[-4000:]}"

    def close(self) -> None:
        """Ends the program, which must end well: a sanitizer speaks up at the end too."""
        self._process.stdin.close()
        said = self._process.stderr.read().decode(errors="replace")
        assert self._process.wait(60) == 0, said
        self._process.stdout.close()
        self._process.stderr.close()


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Returns `values` rounded to bfloat16."""
    return np.asarray(values).astype(ml_dtypes.bfloat16)


def _names(handler: str, count: int) -> tuple[str, ...]:
    """Returns what the `count` numbers of a handler are called, in its order."""
    if handler == "inverted_residual":
        return ("activation", "stride", "top", "left", "adds_input")
    first = ("counts_padding", "window") if "pool" in handler else ("activation",)
    return (*first, "stride", "top", "left")[-count:] if count > 1 else first[:count]


def _number(value: int) -> bytes:
    return np.int64(value).tobytes()


def _described(array: np.ndarray) -> bytes:
    kinds = {np.dtype(ml_dtypes.bfloat16): 16, np.dtype(np.float32): 11}  # as XLA numbers them
    return np.asarray([kinds[array.dtype], array.nbytes, array.ndim, *array.shape], np.int64).tobytes()


def _built(target: Target) -> Path:
    """Returns the program; kept with the programs that tests compile, for this state of the sources."""
    # a program runs here only if it was built for this processor
    digest = hashlib.sha256(repr((target, jaxlib.__version__, platform.node(), sorted(processor_features()))).encode())
    for path in sorted((*SOURCE.iterdir(), *DRIVER.rglob("*.*"))):
        digest.update(path.name.encode() + path.read_bytes())
    folder = Path(os.environ["CXR_TEST_PROGRAMS"]) / KEPT_FOLDER
    program = folder / digest.hexdigest()[:24]
    if not program.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"{program.name}.{os.getpid()}"
        includes = [f"-I{SOURCE}", "-isystem", jax.ffi.include_dir()]
        command = [target.compiler, "-std=c++17", *target.options, "-Wno-psabi", *includes, str(DRIVER / "main.cc")]
        built = subprocess.run(
            [*command, "-pthread", "-rdynamic", "-ldl", "-o", str(new)], capture_output=True, text=True
        )
        assert built.returncode == 0, built.stderr[-4000:]
        new.replace(program)
    return program
