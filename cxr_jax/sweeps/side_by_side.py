"""Command lines run side by side, each on its own share of the machine, until all are done or a signal stops them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxr_jax.process import before_restart, has_accelerator, on_cores
from cxr_jax.runs.files import writing

# Share of a GPU's memory that jobs together may take, and the settings by which a user has decided otherwise.
_GPU_SHARE = 0.9
_GPU_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_GPU_MEMORY_SETTINGS = (_GPU_MEMORY, "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE")


@dataclass(frozen=True)
class Job:
    """A command line, and the file that what it prints is added to; without one it prints where this program does.

    Of jobs that have a compiled program in common, one compiles it, and the others wait until it has.
    """

    name: str
    command: tuple[str, ...]
    log: Path | None = None
    program: str = ""  # by which jobs are known to have it in common; empty: nobody waits
    has_compiled: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Place:
    """The share of the machine that one job at a time gets."""

    environment: dict[str, str] = field(default_factory=dict)  # set for the job
    cores: frozenset[int] | None = None  # that it may run on; None for all


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code, negative for a signal, and the last sentence that it printed to its log."""

    job: Job
    code: int
    sentence: str


def run_side_by_side(
    jobs: Iterable[Job],
    at: Sequence[Place],
    *,
    on_start: Callable[[Job], None] = lambda job: None,
    on_end: Callable[[Ended], None] = lambda ended: None,
) -> tuple[list[Ended], int | None]:
    """Runs `jobs`, taken one by one as a place becomes free, and returns how each that was started ended.

    SIGINT and SIGTERM are handed on to every job that runs, once for every time that they arrive, and SIGHUP as
    SIGTERM; no further job is started then. The second value is the first signal handed on, None if none came. If an
    error leaves this function, the jobs get SIGTERM and are waited for.

    Raises:
        UserError: a log cannot be written.
    """
    waiting, free, held = iter(jobs), list(reversed(at)), None
    running: dict[subprocess.Popen[bytes], tuple[Job, Place, int]] = {}
    ended: list[Ended] = []
    signals: list[int] = []
    with _handled(lambda number, _: signals.append(signal.SIGTERM if number == signal.SIGHUP else number)):
        handed_on = 0
        try:
            while True:
                while free and not signals and (job := held or next(waiting, None)) is not None:
                    held = job if _must_wait(job, [other for other, *_ in running.values()]) else None
                    if held:
                        break
                    on_start(job)
                    process, begins = _start(job, free[-1])
                    running[process] = job, free.pop(), begins
                if not running:
                    return ended, signals[0] if signals else None
                for number in signals[handed_on:]:
                    handed_on += 1
                    for process in running:
                        process.send_signal(number)
                for process in [process for process in running if process.poll() is not None]:
                    job, place, begins = running.pop(process)
                    free.append(place)
                    ended.append(Ended(job, process.returncode, _last_sentence(job, process.returncode, begins)))
                    on_end(ended[-1])
                time.sleep(0.05)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def places(jobs: int, environment: Mapping[str, str] = os.environ) -> list[Place]:
    """Returns one place for each of `jobs` jobs at a time.

    A single job has the whole machine. On a machine with GPUs each of several gets one of them, with its share of the
    memory where they are fewer than the jobs; elsewhere each gets its share of the cores, where the system can bind it.
    """
    devices = gpus(environment)
    if jobs == 1 or not (devices or hasattr(os, "sched_getaffinity")):
        return [Place()] * jobs
    if not devices:
        cores = sorted(os.sched_getaffinity(0))
        # shares that differ by one core at most, and one core each if there are fewer than jobs
        starts = [len(cores) * number // jobs if jobs <= len(cores) else number % len(cores) for number in range(jobs)]
        ends = [*starts[1:], len(cores)] if jobs <= len(cores) else [start + 1 for start in starts]
        return [Place(cores=frozenset(cores[start:end])) for start, end in zip(starts, ends, strict=True)]
    given = [devices[number % len(devices)] for number in range(jobs)]
    settings = [{"CUDA_VISIBLE_DEVICES": device} for device in given]
    if not any(name in environment for name in _GPU_MEMORY_SETTINGS):
        for setting, device in zip(settings, given, strict=True):
            # jax otherwise takes three quarters of the memory at once, which leaves nothing for the next
            if (sharing := Counter(given)[device]) > 1:
                setting[_GPU_MEMORY] = f"{_GPU_SHARE / sharing:.3f}"
    return [Place(environment=setting) for setting in settings]


def gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the NVIDIA GPUs that jax would compute on, as CUDA_VISIBLE_DEVICES names them; found out without jax."""
    if not has_accelerator(environment):
        return ()
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # CUDA sees those that stand before the first impossible one
        return tuple(itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, chosen.split(","))))
    return tuple(str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*")))


def _must_wait(job: Job, running: Sequence[Job]) -> bool:
    """Returns whether one that runs compiles just now what `job` needs too."""
    return bool(job.program) and any(other.program == job.program and not other.has_compiled() for other in running)


def _start(job: Job, place: Place) -> tuple[subprocess.Popen[bytes], int]:
    """Returns the process of a job, and where in its log begins what it prints."""
    with contextlib.ExitStack() as stack:
        log, begins = None, 0
        if job.log is not None:
            stack.enter_context(writing(job.log))
            job.log.parent.mkdir(parents=True, exist_ok=True)
            log = stack.enter_context(job.log.open("ab", buffering=0))
            log.write(f"$ {shlex.join(job.command)}\n".encode())
            # before it is started: a quick one writes at once, and the place in the file is shared with it
            begins = log.tell()
        stack.enter_context(on_cores(place.cores))
        process = subprocess.Popen(
            job.command,
            env={**before_restart(os.environ), "PYTHONUNBUFFERED": "1", **place.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log and subprocess.STDOUT,
            # Ctrl-C in a terminal reaches a whole process group: each must get it once, from here
            start_new_session=True,
        )
        return process, begins


def _last_sentence(job: Job, code: int, begins: int) -> str:
    """Returns why a job ended, as far as its log has it from `begins` on: its last error, or else its last line."""
    if code == -signal.SIGKILL:
        return "it was killed, most likely because memory ran out"
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    if job.log is None:
        return ""
    with job.log.open("rb") as log:
        log.seek(max(begins, log.seek(0, os.SEEK_END) - 8192))
        lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(b"cxr-jax: ")] or lines or [b"it printed nothing"]
    return told[-1].removeprefix(b"cxr-jax: ").decode(errors="replace")


@contextlib.contextmanager
def _handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Has `handler` take the signals that end a program, while the block runs in the main thread, as Python has it."""
    # nohup has SIGHUP ignored
    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    in_main = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, handler) for number in numbers if in_main}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
