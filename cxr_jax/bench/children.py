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
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from cxr_jax.bench.cases import Case, Effort
from cxr_jax.errors import UserError
from cxr_jax.process import CACHE_SWITCH, before_restart

AS_INSTALLED = "as-installed"
"""Argument of `worker` that asks for the settings which the console entry point makes; PyTorch runs without them."""

TOLD_OF_STDERR = 300
"""Characters of what a dying child wrote that are repeated."""


class Child:
    """A process that measures; use as a context manager, so that none is left behind."""

    def __init__(self, task: Mapping[str, Any], environment: Mapping[str, str], threads: int, *options: str) -> None:
        """Starts it on `task`, as module `worker` describes them, on `threads` cores."""
        self.facts: dict[str, Any] = {}  # what it told of its case
        self.failed = False  # it failed, died or was ended
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115, closed by close
        with held_to_cores(threads):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cxr_jax.bench.worker", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=dict(environment),
                encoding="utf-8",
                # Ctrl-C is the parent's to handle; it ends its children
                start_new_session=True,
            )
        self._send(task)

    def ask(self, request: Mapping[str, Any], limit: float = 0.0) -> dict[str, Any]:
        """Returns the child's answer to `request`; raises UserError as `answer` does."""
        self._send(request)
        return self.answer(limit)

    def answer(self, limit: float = 0.0, what: str = "finish a turn") -> dict[str, Any]:
        """Returns the next line that the child says.

        Raises UserError if the case failed, the process died, or nothing came within `limit` seconds (0: no limit);
        it has then been ended.
        """
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(limit, give_up)
        if limit:
            timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            self.failed = True
            raise UserError(f"did not {what} in {limit:g} s" if late.is_set() else self._last_words())
        message = json.loads(line)
        if "failure" in message:
            self.failed = True
            raise UserError(message["failure"])
        return message

    def finish(self, limit: float = 0.0) -> dict[str, Any]:
        """Returns what the child says at the end of its input; raises UserError as `answer` does."""
        self._process.stdin.close()
        return self.answer(limit)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, whatever it is doing, and those that it started."""
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            # what was not sent to a dead child is lost with it
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.failed = True
            raise UserError(self._last_words()) from None

    def _last_words(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        written = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = written[-1][:TOLD_OF_STDERR] if written else "it wrote nothing"
        if code == -signal.SIGKILL:
            return "the process was killed, most likely because memory ran out; a smaller batch needs less"
        return f"the process ended with code {code}: {last}"


def start_case(case: Case, effort: Effort) -> Child:
    """Returns a child that has compiled `case`, run the steps of warm-up and told its facts.

    Raises UserError if the case failed, the process died or it took longer than the limit of a turn.
    """
    options = [] if case.implementation == "timm" else [AS_INSTALLED]
    task = {"case": dataclasses.asdict(case), "warm_up": effort.warm_up}
    child = Child(task, environment_of(case, os.environ), case.threads, *options)
    try:
        child.facts = child.answer(effort.limit, "compile and warm up")["ready"]
    except BaseException:
        child.close()
        raise
    return child


def ask_ceilings(threads: int) -> dict[str, float]:
    """Returns the fields of `ceilings.Ceilings`, measured by a child on `threads` cores; UserError if it died."""
    with Child({"ceilings": True}, bare_environment(os.environ), threads, AS_INSTALLED) as child:
        return child.answer()


def environment_of(case: Case, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment in which a child measures `case`."""
    chosen = bare_environment(environment)
    if case.preload:
        chosen["LD_PRELOAD"] = case.preload
    if case.backend == "compile":
        chosen.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    if case.devices > 1 and case.implementation != "timm":
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


def available_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def held_to_cores(count: int) -> Iterator[None]:
    """Holds this thread to the first `count` of its cores in the block: a process started there keeps to them."""
    if count >= available_cores():
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
