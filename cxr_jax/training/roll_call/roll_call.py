"""The processes of one training, watched and kept in step over one connection each to process 0.

jax ends a process whose peers are gone by an abort, and waits for ever for one that hangs. Here every process hears
within a stated time which of them is gone, silent or slow, and leaves with a sentence that says so. Nothing here needs
jax: the processes find each other, and agree on what they are to do, before it is started.
"""

from __future__ import annotations

import selectors
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from cxr_jax.errors import UserError
from cxr_jax.training.roll_call.line import Line

FAREWELL = 2.0
"""Seconds that process 0 waits for the others to leave: jax aborts them if its coordinator is gone before them."""

_OWN_WORDS = 1.0
"""Seconds that a process has to tell a failure of its own, before it repeats that of another."""


class Place(NamedTuple):
    """Which of the processes this is, and where process 0 is met."""

    host: str
    port: int
    process: int
    processes: int


class Limits(NamedTuple):
    """How long to wait before giving up, in seconds."""

    startup: float  # for all processes to come
    heartbeat: float  # for a sign of life of each
    step: float  # for each to move on, signs of life or not


Leave = Callable[[str], None]
"""Ends this process with a sentence, whatever its main thread is doing."""


class Cause(NamedTuple):
    """Why a process must leave."""

    sentence: str
    told: bool = False  # by another process; this one may be about to say the same of itself


class RollCall(ABC):
    """One process among several. The main thread calls the methods, each process the same ones in the same order."""

    def __init__(self, place: Place, limits: Limits, leave: Leave) -> None:
        self.place, self._limits, self._leave = place, limits, leave
        self._changed = threading.Condition()
        self._mark = 0  # how often this process has come to a point where all of them come
        self._exchanges = 0
        self._results: dict[int, list[Any]] = {}
        self._stop: tuple[int, str] | None = None  # the mark at which all stop, and why
        self._cause: str | None = None  # why this process is to leave
        self._failing = threading.Event()
        self._finished = False
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._watch, name="roll call", daemon=True)

    def exchange(self, value: Any) -> list[Any]:
        """What every process gives here, by its number; any JSON value. Waits for all of them."""
        with self._changed:
            number, self._exchanges = self._exchanges, self._exchanges + 1
            self._mark += 1
        self._offer(number, value)
        with self._changed:
            self._wait_for(lambda: number in self._results)
            return self._results.pop(number)

    def agree_to_stop(self, reason: str | None) -> str | None:
        """Why all processes stop here, or None to go on; `reason` is why this one would like to stop.

        Called wherever training can stop. All of them stop at the same call, at most two later than the first wish;
        between two calls there must be work that no process ends before the others have begun it, or that of the call
        before.
        """
        with self._changed:
            self._mark += 1
            mark = self._mark
        self._wish(mark, reason)
        with self._changed:
            return self._stop[1] if self._stop is not None and mark >= self._stop[0] else None

    def fail(self, sentence: str) -> None:
        """Tell the others that this process leaves because of `sentence`."""
        self._failing.set()
        self._tell_failure(sentence)

    def await_cause(self) -> None:
        """Wait a little for the watch to find why a collective operation failed; it then ends the process itself."""
        with self._changed:
            self._changed.wait_for(lambda: self._cause is not None, timeout=FAREWELL + _OWN_WORDS)

    def finish(self) -> None:
        """Tell the others that this process has done its part: it may leave without a word from now on."""
        self._finished = True
        self._broadcast(kind="done")

    def close(self) -> None:
        """Hang up and stop watching."""
        self._closed = True
        self._thread.join(timeout=FAREWELL)
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()
        self._selector.close()

    @abstractmethod
    def _offer(self, number: int, value: Any) -> None:
        """Give this process's value of an exchange."""

    @abstractmethod
    def _wish(self, mark: int, reason: str | None) -> None:
        """Let process 0 know of a wish to stop."""

    @abstractmethod
    def _tell_failure(self, sentence: str) -> None:
        """Let the others know why this process leaves."""

    @abstractmethod
    def _broadcast(self, **message: Any) -> None:
        """Send `message` to everybody that this process is connected to."""

    @abstractmethod
    def _hear(self, line: Line) -> Cause | None:
        """Take in what came over `line`; why the process must leave, if it must."""

    @abstractmethod
    def _before_leaving(self, sentence: str) -> None:
        """Do what is owed to the others before this process leaves because of `sentence`."""

    @abstractmethod
    def _look_around(self, now: float) -> Cause | None:
        """Why the process must leave because of who is silent or slow, if it must."""

    def _watch(self) -> None:
        interval = min(1.0, self._limits.heartbeat / 4)
        sent = 0.0
        while not self._closed:
            cause = None
            for key, _ in self._selector.select(interval / 2):
                cause = cause or self._hear(key.fileobj)
            now = time.monotonic()
            if now - sent >= interval:
                self._broadcast(kind="beat", mark=self._mark)
                sent = now
            # only after what has come in was heard: this process may itself have been asleep
            cause = cause or self._look_around(now)
            if cause is not None and self._give_up(cause):
                return

    def _give_up(self, cause: Cause) -> bool:
        """End this process because of `cause`; False if it is leaving for a reason of its own."""
        if self._failing.wait(_OWN_WORDS if cause.told else 0) or self._closed:
            return False
        with self._changed:
            self._cause = cause.sentence
            self._changed.notify_all()
        self._before_leaving(cause.sentence)
        self._leave(cause.sentence)
        return True

    def _wait_for(self, happened: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait, with the lock held, until it `happened`; UserError if the process must leave instead."""
        came = self._changed.wait_for(lambda: self._cause is not None or happened(), timeout)
        if self._cause is not None:
            raise UserError(self._cause)
        return came

    def _unheard(self, process: int) -> Cause:
        return Cause(
            f"process {process} has not been heard of for {self._limits.heartbeat:g} s (parallel.heartbeat_timeout): "
            "it is stopped or cut off"
        )

    @staticmethod
    def _gone(process: int) -> Cause:
        return Cause(f"process {process} ended without a word: it was killed, crashed or ran out of memory")
