"""The parent's end of a child process: how it is started, asked and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

from cxr_jax.bench.cases import RIVALS, Case, Effort
from cxr_jax.errors import UserError
from cxr_jax.process import CACHE_SWITCH, available_cores, before_restart, on_cores

AS_INSTALLED = "as-installed"
"""Argument of `worker` that asks for the settings which the console entry point makes; PyTorch runs without them."""

TOLD_OF_STDERR = 300
"""Characters of what a dying child wrote that are repeated."""


class Child:
    """A process that measures and that speaks as module `worker` describes."""

    def __init__(self, process: subprocess.Popen, written: IO[bytes]) -> None:
        """Takes over a started process, and the file of what it writes to standard error."""
        self.facts: dict[str, Any] = {}  # what it told of its case
        self.failed = False  # it failed, died or was ended
        self._process, self._written = process, written

    def ask(self, request: Mapping[str, Any], limit: float = 0.0, what: str = "finish a turn") -> dict[str, Any]:
        """Returns the child's answer to `request`; raises UserError as `answer` does."""
        # a dead child is noticed when it does not answer
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self.answer(limit, what)

    def answer(self, limit: float = 0.0, what: str = "finish a turn") -> dict[str, Any]:
        """Returns the next line that the child says.

        Raises UserError if the case failed, the process died, or nothing came within `limit` seconds (0: no limit);
        it has then been ended.
        """
        in_time, _, _ = select.select([self._process.stdout], [], [], limit or None)
        line = self._process.stdout.readline() if in_time else ""
        message = json.loads(line) if line else {}
        if not in_time:
            end_group(self._process)
            message["failure"] = f"did not {what} in {limit:g} s"
        elif not line:
            message["failure"] = self._last_words()
        if "failure" in message:
            self.failed = True
            raise UserError(message["failure"])
        return message

    def finish(self, limit: float = 0.0) -> dict[str, Any]:
        """Returns what the child says at the end of its input; raises UserError as `answer` does."""
        self._process.stdin.close()
        return self.answer(limit)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._written.seek(0)
        lines = self._written.read().decode(errors="replace").strip().splitlines() or ["it wrote nothing"]
        if code == -signal.SIGKILL:
            return "the process was killed, most likely because memory ran out; a smaller batch needs less"
        return f"the process ended with code {code}: {lines[-1][:TOLD_OF_STDERR]}"


@contextlib.contextmanager
def started(
    command: list[str], environment: Mapping[str, str], threads: int, **streams: Any
) -> Iterator[subprocess.Popen]:
    """Runs Python with `command` on `threads` cores, in a group of its own, which is ended with the block.

    `streams` are those of Popen. The terminal's Ctrl-C does not reach the group.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads] if threads < available_cores() else None
    with on_cores(cores):
        process = subprocess.Popen([sys.executable, *command], env=environment, start_new_session=True, **streams)
    try:
        yield process
    finally:
        end_group(process)
        for pipe in filter(None, (process.stdin, process.stdout)):
            # what was not sent to a dead child is lost with it
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def end_group(process: subprocess.Popen) -> None:
    """Ends the process, whatever it is doing, and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def worker(environment: Mapping[str, str], threads: int, *options: str) -> Iterator[Child]:
    """Starts module `worker` with `options`, and ends it with the block."""
    command = ["-m", "cxr_jax.bench.worker", *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with tempfile.TemporaryFile() as log, started(command, environment, threads, stderr=log, **pipes) as process:
        yield Child(process, log)


@contextlib.contextmanager
def start_case(case: Case, effort: Effort) -> Iterator[Child]:
    """Starts a child that has compiled `case`, run the steps of warm-up and told its facts.

    Raises UserError if the case failed, the process died or it took longer than the limit of a turn.
    """
    options = [] if case.implementation in RIVALS else [AS_INSTALLED]
    task = {"case": dataclasses.asdict(case)}
    with worker(environment_of(case, os.environ), case.threads, *options) as child:
        child.facts = child.ask(task, effort.limit, "compile and warm up")["ready"]
        yield child


def ask_ceilings(threads: int) -> dict[str, float]:
    """Returns the fields of `ceilings.Ceilings`, measured by a child on `threads` cores; UserError if it died."""
    with worker(bare_environment(os.environ), threads, AS_INSTALLED) as child:
        return child.ask({"ceilings": True})


def environment_of(case: Case, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment in which a child measures `case`."""
    chosen = bare_environment(environment)
    if case.preload:
        chosen["LD_PRELOAD"] = case.preload
    if case.backend == "compile":
        chosen.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    if case.devices > 1:
        chosen["JAX_NUM_CPU_DEVICES"] = str(case.devices)
    return chosen


def bare_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns `environment` as the user made it, without what our own entry point put in, and no compiled programs.

    PyTorch is then measured with the allocator that its users have, and compile seconds are those of a first start.
    """
    bare = before_restart(environment)
    bare.pop("JAX_COMPILATION_CACHE_DIR", None)
    bare[CACHE_SWITCH] = "off"
    # two processes share a GPU here, and jax would otherwise take three quarters of its memory at once
    bare.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return bare
