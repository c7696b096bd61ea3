"""What the processes of one training tell each other, and how each finds out who of the others is lost.

jax aborts a process whose coordinator is gone, waits for ever for one that hangs, and names neither. So the processes
watch each other over connections of their own, from before jax is started until the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from cxr_jax.config.schema import ParallelConfig
from cxr_jax.errors import EXIT_LOST, UserError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST = 1 << 24  # bytes of a message; whatever sends more is not one of ours
_OWN_WORDS = 1.0  # seconds that a process has to tell a failure of its own, before it repeats that of another


class Place(NamedTuple):
    """Which of the processes this is, and where process 0 is met."""

    host: str
    port: int
    rank: int
    world_size: int


class Connections:
    """What the processes tell each other: each message of one reaches all, and all in the same order.

    Process 0 has a connection to every other process and passes on every message. Each other process is connected to
    process 0 only. A thread listens to each connection. One more watches who is lost, silent or stuck, and then ends
    this process with a sentence. The main threads of all processes call `exchange` and `agree_to_stop` in the same
    order.
    """

    def __init__(self, place: Place, limits: ParallelConfig) -> None:
        """Finds process 0, or listen as process 0; UserError if that cannot be. `limits` has the time-outs."""
        self.place, self._limits = place, limits
        self._changed = threading.Condition()
        self._open: dict[int, socket.socket] = {}
        self._heard: dict[int, float] = {}  # when each of these last sent something
        self._began = time.monotonic()
        self._marks = [(0, self._began)] * place.world_size  # how far each has come, and since when
        self._early: list[tuple[int, str, Any]] = []  # what was said before all had come
        self._given: list[deque[Any]] = [deque() for _ in range(place.world_size)]
        self._wish: str | None = None  # why one of them would like to stop
        self._calls = 0  # of `agree_to_stop`
        self._reached: dict[int, int] = {}  # by rank, the calls that it had made when it heard of the wish
        self._done: set[int] = set()
        self._verdict: str | None = None  # why this process must leave
        self._told = False  # the verdict is what another process told of itself
        self._failing = threading.Event()  # this process leaves for a reason of its own
        if place.rank == 0:
            threading.Thread(target=self._accept, args=[_listen_at(place)], daemon=True).start()
        else:
            self._open[0] = _find_first(place, limits.startup_timeout)
            self._heard[0] = time.monotonic()
            self.say("hello", place.world_size)
            threading.Thread(target=self._listen, args=(self._open[0], 0), daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def exchange(self, value: Any) -> list[Any]:
        """Returns the JSON `value` that each process gives here, by its rank; waits for all of them."""
        with self._changed:
            self._move_on()
            self.say("give", value)
            self._changed.wait_for(lambda: all(self._given))
            return [given.popleft() for given in self._given]

    def agree_to_stop(self, reason: str | None) -> str | None:
        """Returns why all processes stop here, or None; `reason` is why this one would like to.

        All of them stop at the same call, soon after the first wish.
        """
        with self._changed:
            self._move_on()
            self._calls += 1
            if reason is not None and self._wish is None:
                self.say("wish", reason)
            # once there is a wish none goes further until each has said how far it has come
            self._changed.wait_for(lambda: self._wish is None or len(self._reached) == self.place.world_size)
            return self._wish if self._wish is not None and self._calls > max(self._reached.values()) else None

    def fail(self, error: BaseException) -> None:
        """Tells the others that this process leaves because of `error`."""
        if isinstance(error, jax.errors.JaxRuntimeError) and not str(error).startswith("RESOURCE_EXHAUSTED"):
            # an operation of all processes fails when one of them is gone; the watch finds which, and ends this one
            time.sleep(2)
            print("cxr-jax: an operation of all processes failed; waiting to hear which is lost", file=sys.stderr)
            time.sleep(self._limits.heartbeat_timeout)
        self._failing.set()
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        told = "it was interrupted" if isinstance(error, KeyboardInterrupt) else told
        self.say("leave", f"process {self.place.rank} stopped: {' '.join(told.split())[:300]}")

    def _accept(self, listener: socket.socket) -> None:
        while True:
            threading.Thread(target=self._listen, args=(listener.accept()[0], None), daemon=True).start()

    def _listen(self, connection: socket.socket, rank: int | None) -> None:
        """Takes in what process `rank` sends, until it is gone; None is one that has not said yet which it is.

        `origin` is the process that a message is from: process 0 passes on those of all others.
        """
        # whatever sends something else than messages is no process of ours, and is hung up on
        with contextlib.suppress(OSError, ValueError, TypeError), connection, connection.makefile("rb") as lines:
            while line := lines.readline(_LONGEST):
                origin, kind, value = json.loads(line)
                if rank is None:
                    self._welcome(connection, origin, kind, value)
                    rank = origin
                    continue
                self._heard[rank] = time.monotonic()
                if kind == "beat":
                    self._note_mark(rank, value)
                elif self.place.rank == 0:
                    self.say(kind, value, rank=rank)
                else:
                    self._take_in(origin, kind, value)
        with self._changed:
            if rank is not None:
                del self._open[rank]
                if rank not in self._done:
                    self._find(f"process {rank} ended without a word: it was killed, crashed or ran out of memory")

    def _welcome(self, connection: socket.socket, rank: int, kind: str, processes: int) -> None:
        """Takes in process `rank`, which says hello; ValueError, after telling it, if there can be none such."""
        count = self.place.world_size
        with self._changed:
            if kind == "hello" and processes == count and 0 < rank < count and rank not in self._open:
                self._open[rank], self._heard[rank] = connection, time.monotonic()
                for message in self._early:
                    _send(connection, *message)
                return
            again = " once more" if rank in self._open else ""
            complaint = f"process {rank} of {processes} came{again}, where process 0 expects each of {count} once"
            _send(connection, 0, "leave", f"{complaint}: check parallel.world_size and parallel.rank")
            raise ValueError(complaint)

    def say(self, kind: str, value: Any = None, *, rank: int | None = None) -> None:
        """Sends what this process says, or process `rank`, on its way: from process 0 to all, from another to it.

        After `done` a process may leave without a word; `leave` tells the others that they must, and why.
        """
        rank = self.place.rank if rank is None else rank
        with self._changed:
            for connection in self._open.values():
                _send(connection, rank, kind, value)
            if self.place.rank == 0:
                if len(self._open) < self.place.world_size - 1:
                    self._early.append((rank, kind, value))
                self._take_in(rank, kind, value)

    def _take_in(self, rank: int, kind: str, value: Any) -> None:
        with self._changed:
            if kind == "give":
                self._given[rank].append(value)
            elif kind == "wish" and self._wish is None:
                self._wish = value
                self.say("reached", self._calls)
            elif kind == "reached":
                self._reached[rank] = value
            elif kind == "done":
                self._done.add(rank)
            elif kind == "leave" and rank != self.place.rank:
                self._find(value, told=True)
            self._changed.notify_all()

    def _move_on(self) -> None:
        self._note_mark(self.place.rank, self._marks[self.place.rank][0] + 1)

    def _note_mark(self, rank: int, mark: int) -> None:
        if mark != self._marks[rank][0]:
            self._marks[rank] = (mark, time.monotonic())

    def _find(self, verdict: str, *, told: bool = False) -> None:
        if self._verdict is None:
            self._verdict, self._told = verdict, told
            self._changed.notify_all()

    def _watch(self) -> None:
        """Sends signs of life until there is a reason to leave; then end this process."""
        suspected = None
        with self._changed:
            while self._verdict is None:
                for connection in self._open.values():
                    _send(connection, self.place.rank, "beat", self._marks[self.place.rank][0])
                self._changed.wait_for(lambda: self._verdict is not None, min(0.5, self._limits.heartbeat_timeout / 4))
                found = self._look_around(time.monotonic())
                # seen twice: this process may itself have been asleep, and hear the others only now
                if found is not None and found == suspected:
                    self._find(found)
                suspected = found
        if not self._failing.wait(_OWN_WORDS if self._told else 0):
            self.say("leave", self._verdict)
            leave_at_once(self._verdict)

    def _look_around(self, now: float) -> str | None:
        """Returns who is missing, silent or stuck, as a sentence; process 0 sees it of all, another of process 0."""
        limits = self._limits
        working = [rank for rank in self._open if rank not in self._done]
        for rank in working:
            if now - self._heard[rank] > limits.heartbeat_timeout:
                limit = f"{limits.heartbeat_timeout} s (parallel.heartbeat_timeout)"
                return f"process {rank} has not been heard of for {limit}: it is stopped or cut off"
        if self.place.rank > 0:
            return None
        missing = set(range(1, self.place.world_size)) - self._open.keys() - self._done
        if missing:
            self._marks = [(mark, now) for mark, _ in self._marks]
            limit = f"{limits.startup_timeout} s (parallel.startup_timeout)"
            late = now - self._began > limits.startup_timeout
            return f"process {_named(missing)} did not come within {limit}" if late else None
        marks = {rank: self._marks[rank] for rank in {0, *working} - self._done}
        last = min((mark for mark, _ in marks.values()), default=0)
        behind = {rank: since for rank, (mark, since) in marks.items() if mark == last}
        if not behind or now - max(behind.values()) <= limits.step_timeout:
            return None
        others = "they hang, or a step takes longer than that" if len(behind) == len(marks) else "the others wait"
        return (
            f"process {_named(behind)} has not moved on for {limits.step_timeout} s (parallel.step_timeout): {others}"
        )


def leave_at_once(sentence: str) -> None:
    """Ends this process with `sentence` on standard error, whatever its threads are doing."""
    # the bar of a terminal hides the cursor
    cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    advice = "start all processes again, with --resume once there is a checkpoint"
    # not through a buffer that another thread may hold
    os.write(sys.stderr.fileno(), f"{cursor}cxr-jax: {sentence}; {advice}\n".encode())
    os._exit(EXIT_LOST)


def _send(connection: socket.socket, rank: int, kind: str, value: Any) -> None:
    """Sends a message; whether it arrives shows only when the other end answers or is gone."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps((rank, kind, value)).encode() + b"\n")


def _listen_at(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    # on every address of the machine: the others may know it by another name than it does itself
    address = place.host if place.host in _LOOPBACK else ""
    try:
        return socket.create_server((address, place.port), family=family, backlog=place.world_size)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at {place.host}:{place.port} ({error.strerror or error}): name an address of its "
            "own machine and a free port (parallel.coordinator)"
        ) from None


def _find_first(place: Place, within: float) -> socket.socket:
    """Returns a connection to process 0; UserError if that takes longer than `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        try:
            connection = socket.create_connection((place.host, place.port), timeout=min(5.0, within))
            connection.settimeout(None)
            return connection
        # also a name that the network does not know yet, or an address that the machine has no way to
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process {place.rank} could not reach process 0 at {place.host}:{place.port} within {within} s "
                    f"(parallel.startup_timeout; {error.strerror or error}): start all {place.world_size} processes, "
                    "and check the address and the firewall",
                    EXIT_LOST,
                ) from None
            time.sleep(0.2)


def _named(processes: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(processes)))
