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
from types import FrameType

from cxr_jax.process import before_restart, has_accelerator
from cxr_jax.runs.files import writing

# Begins the sentence in which a command tells an error.
_ERROR = b"cxr-jax: "
_LONGEST_SENTENCE = 8192
_BETWEEN_LOOKS = 0.05  # seconds

# Share of a GPU's memory that jobs together may take, and the settings by which a user has decided otherwise.
_GPU_SHARE = 0.9
_GPU_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_GPU_MEMORY_SETTINGS = (_GPU_MEMORY, "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE")


@dataclass(frozen=True)
class Job:
    """A command line, and the file that what it prints is added to."""

    name: str
    command: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Place:
    """The share of the machine that one job at a time gets."""

    environment: dict[str, str] = field(default_factory=dict)  # set for the job
    cores: frozenset[int] | None = None  # that it may run on; None for all


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code, negative for a signal, and the last sentence that it printed."""

    job: Job
    code: int
    sentence: str


def places(jobs: int, environment: Mapping[str, str] = os.environ) -> list[Place]:
    """One place for each of `jobs` jobs at a time.

    A single job has the whole machine. On a machine with GPUs each of several gets one of them, with its share of the
    memory where they are fewer than the jobs; elsewhere each gets its share of the cores, where the system can bind it.
    """
    if jobs == 1:
        return [Place()]
    devices = gpus(environment)
    if not devices:
        return [Place(cores=cores) for cores in _core_shares(jobs)]
    given = [devices[number % len(devices)] for number in range(jobs)]
    count = Counter(given)
    found = []
    for device in given:
        settings = {"CUDA_VISIBLE_DEVICES": device}
        # jax otherwise takes three quarters of the memory at once, which leaves nothing for the next
        if count[device] > 1 and not any(name in environment for name in _GPU_MEMORY_SETTINGS):
            settings[_GPU_MEMORY] = f"{_GPU_SHARE / count[device]:.3f}"
        found.append(Place(environment=settings))
    return found


def gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The NVIDIA GPUs that jax would compute on, as CUDA_VISIBLE_DEVICES names them; found out without jax."""
    if not has_accelerator(environment):
        return ()
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # CUDA sees those that stand before the first impossible one
        return tuple(itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, chosen.split(","))))
    return tuple(str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*")))


def _core_shares(jobs: int) -> list[frozenset[int] | None]:
    """The cores of this process in `jobs` shares that differ by one core at most; one core each if there are fewer."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < jobs:
        return [frozenset({cores[number % len(cores)]}) for number in range(jobs)]
    ends = [len(cores) * number // jobs for number in range(jobs + 1)]
    return [frozenset(cores[start:end]) for start, end in itertools.pairwise(ends)]


def run_side_by_side(
    jobs: Iterable[Job],
    at: Sequence[Place],
    *,
    on_start: Callable[[Job], None] = lambda job: None,
    on_end: Callable[[Ended], None] = lambda ended: None,
) -> tuple[list[Ended], int | None]:
    """Run `jobs`, taken one by one as a place becomes free, and return how each that was started ended.

    SIGINT and SIGTERM are handed on to every job that runs, once for every time that they arrive, and SIGHUP as
    SIGTERM; no further job is started then. The second value is the first signal handed on, None if none came. If an
    error leaves this function, the jobs get SIGTERM and are waited for.

    Raises:
        UserError: a log cannot be written.
    """
    waiting, free = iter(jobs), list(reversed(at))
    running: list[_Running] = []
    ended: list[Ended] = []
    handed_on = 0
    with _received() as signals:
        try:
            while True:
                while free and not signals and (job := next(waiting, None)) is not None:
                    on_start(job)
                    running.append(_Running(job, free.pop()))
                if not running:
                    return ended, signals[0] if signals else None
                for number in signals[handed_on:]:
                    handed_on += 1
                    for one in running:
                        one.process.send_signal(number)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    free.append(one.place)
                    ended.append(one.end())
                    on_end(ended[-1])
                time.sleep(_BETWEEN_LOOKS)
        finally:
            for one in running:
                one.process.terminate()
            for one in running:
                one.process.wait()


class _Running:
    """A job with its process."""

    def __init__(self, job: Job, place: Place) -> None:
        self.job, self.place = job, place
        with writing(job.log):
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                log.write(f"$ {shlex.join(job.command)}\n".encode())
                log.flush()
                self._began = log.tell()
                with _bound_to(place.cores):
                    self.process = subprocess.Popen(
                        job.command,
                        env={**before_restart(os.environ), "PYTHONUNBUFFERED": "1", **place.environment},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        # Ctrl-C in a terminal reaches a whole process group: each must get it once, from here
                        start_new_session=True,
                    )

    def end(self) -> Ended:
        """How the process, which is over, ended."""
        return Ended(self.job, self.process.returncode, self._last_sentence())

    def _last_sentence(self) -> str:
        code = self.process.returncode
        if code == -signal.SIGKILL:
            return "it was killed, most likely because memory ran out"
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        with self.job.log.open("rb") as log:
            log.seek(max(self._began, log.seek(0, os.SEEK_END) - _LONGEST_SENTENCE))
            lines = [line.strip() for line in log.read().splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(_ERROR)] or lines or [b"it printed nothing"]
        return told[-1].removeprefix(_ERROR).decode(errors="replace")


@contextlib.contextmanager
def _bound_to(cores: frozenset[int] | None) -> Iterator[None]:
    """Bind this thread to `cores` while the block starts a process, which begins with the same; None binds nothing."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _received() -> Iterator[list[int]]:
    """The signals to hand on, as they come while the block runs; in the main thread only, as Python has it."""
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def receive(number: int, frame: FrameType | None) -> None:
        signals.append(signal.SIGTERM if number == signal.SIGHUP else number)

    # nohup has SIGHUP ignored
    handled = [signal.SIGINT, signal.SIGTERM]
    handled += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    previous = {number: signal.signal(number, receive) for number in handled}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
