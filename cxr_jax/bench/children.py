"""The parent's end of a child process: how it is started, asked and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from cxr_jax.bench.cases import Case, DepthwiseCase, EpochCase
from cxr_jax.bench.worker import AS_INSTALLED
from cxr_jax.errors import UserError
from cxr_jax.process import CACHE_SWITCH, before_restart

_TOLD_OF_STDERR = 300
"""Characters of what a dying child wrote that are repeated."""


class Child:
    """A process that measures; use as a context manager, so that none is left behind."""

    def __init__(self, task: Mapping[str, Any], environment: Mapping[str, str], *, as_installed: bool) -> None:
        """Start it on `task`, as module `worker` describes them."""
        self.facts: dict[str, Any] = {}  # what it told of its case
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115, closed by __exit__
        command = [sys.executable, "-m", "cxr_jax.bench.worker", *([AS_INSTALLED] if as_installed else [])]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=dict(environment),
            encoding="utf-8",
            # Ctrl-C is the parent's to handle; it ends its children
            start_new_session=True,
        )
        self._send(task)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer to `request`. Raises UserError if the case failed or the process died."""
        self._send(request)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that the child says. Raises UserError if the case failed or the process died."""
        line = self._process.stdout.readline()
        if not line:
            raise UserError(self._last_words())
        message = json.loads(line)
        if "failure" in message:
            raise UserError(message["failure"])
        return message

    def finish(self) -> dict[str, Any]:
        """What the child says at the end of its input. Raises UserError if the case failed or the process died."""
        self._process.stdin.close()
        return self.answer()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            # what was not sent to a dead child is lost with it
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise UserError(self._last_words()) from None

    def _last_words(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        written = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = written[-1][:_TOLD_OF_STDERR] if written else "it wrote nothing"
        if code == -signal.SIGKILL:
            return "the process was killed, most likely because memory ran out; a smaller batch needs less"
        return f"the process ended with code {code}: {last}"


def start_case(case: Case, warm_up: int, environment: Mapping[str, str] = os.environ) -> Child:
    """A child that has compiled `case`, run `warm_up` steps and told its facts.

    Raises UserError if the case failed or the process died.
    """
    task = {"case": dataclasses.asdict(case), "warm_up": warm_up}
    child = Child(task, environment_of(case, environment), as_installed=case.implementation != "timm")
    try:
        child.facts = child.answer()["ready"]
    except BaseException:
        child.close()
        raise
    return child


def ask_ceilings(threads: int, environment: Mapping[str, str] = os.environ) -> dict[str, float]:
    """The fields of `ceilings.Ceilings`, measured by a child on `threads` cores; UserError if it died."""
    with Child({"ceilings": {"threads": threads}}, bare_environment(environment), as_installed=True) as child:
        return child.answer()


def ask_depthwise(
    case: DepthwiseCase, copy_bytes: float, environment: Mapping[str, str] = os.environ
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `depthwise.measure_depthwise` as a child measures them; UserError if it died."""
    task = {"depthwise": dataclasses.asdict(case), "copy_bytes": copy_bytes}
    with Child(task, bare_environment(environment), as_installed=True) as child:
        while "row" in (message := child.answer()):
            yield message["row"]


def ask_epoch(case: EpochCase, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What `epoch.run_epoch` returns, with the child's peak memory; UserError if it died.

    Compiled programs are kept and found as in any training: here nobody counts the seconds of compiling.
    """
    chosen = before_restart(environment)
    if case.devices > 1:
        chosen["JAX_NUM_CPU_DEVICES"] = str(case.devices)
    with Child({"epoch": dataclasses.asdict(case)}, chosen, as_installed=True) as child:
        return child.answer()


def environment_of(case: Case, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a child measures `case`."""
    chosen = bare_environment(environment)
    if case.preload:
        chosen["LD_PRELOAD"] = case.preload
    if case.backend == "compile":
        chosen.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    if case.devices > 1 and case.implementation != "timm":
        chosen["JAX_NUM_CPU_DEVICES"] = str(case.devices)
    return chosen


def bare_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` as the user made it, without what our own entry point has put in, and with no compiled programs.

    PyTorch is then measured with the allocator that its users have, and compile seconds are those of a first start.
    """
    bare = before_restart(environment)
    bare.pop("JAX_COMPILATION_CACHE_DIR", None)
    bare[CACHE_SWITCH] = "off"
    # two processes share a GPU here, and jax would otherwise take three quarters of its memory at once
    bare.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return bare
