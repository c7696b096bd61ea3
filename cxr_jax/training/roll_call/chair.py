"""The end of a roll call at process 0, which keeps the roll."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.training.roll_call.line import Line
from cxr_jax.training.roll_call.roll_call import FAREWELL, Cause, Leave, Limits, Place, RollCall

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Chair(RollCall):
    """Process 0: collects and hands out, and is the one that notices who is gone, silent or slow."""

    def __init__(self, place: Place, limits: Limits, leave: Leave) -> None:
        """Wait for all the others; UserError naming those that do not come within `limits.startup`."""
        super().__init__(place, limits, leave)
        self._lines: dict[int, Line] = {}
        self._marks: dict[int, tuple[int, float]] = {}  # the last mark of each of the others, and when it was reached
        self._own_mark = (0, time.monotonic())
        self._offered: dict[int, dict[int, Any]] = {}
        self._wished: str | None = None
        self._understood: set[int] = set()
        self._done: set[int] = set()
        self._others = set(range(1, place.processes))
        self._listener = self._listen()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        self._await_all()

    def _listen(self) -> socket.socket:
        host, port = self.place.host, self.place.port
        # on every address of the machine: the others may know it by another name than it does itself
        address = host if host in _LOOPBACK else ""
        try:
            listener = socket.create_server((address, port), backlog=self.place.processes)
        except OSError as error:
            raise UserError(
                f"process 0 cannot listen at {host}:{port} ({error.strerror or error}): name an address of its own "
                "machine and a free port (parallel.coordinator)"
            ) from None
        return listener

    def _await_all(self) -> None:
        with self._changed:
            came = self._wait_for(lambda: self._others <= self._lines.keys(), self._limits.startup)
            missing = sorted(self._others - self._lines.keys())
        if not came:
            names = ", ".join(map(str, missing))
            sentence = f"process {names} did not come within {self._limits.startup:g} s (parallel.startup_timeout)"
            self.fail(sentence)
            raise UserError(f"{sentence}: start all {self.place.processes} processes")

    def _offer(self, number: int, value: Any) -> None:
        self._collect(0, number, value)

    def _collect(self, process: int, number: int, value: Any) -> None:
        with self._changed:
            offered = self._offered.setdefault(number, {})
            offered[process] = value
            if len(offered) < self.place.processes:
                return
            values = [offered[process] for process in range(self.place.processes)]
            del self._offered[number]
            self._broadcast(kind="values", number=number, values=values)
            self._results[number] = values
            self._changed.notify_all()

    def _wish(self, mark: int, reason: str | None) -> None:
        with self._changed:
            reason = reason or self._wished
            if reason is None or self._stop is not None:
                return
            # the others can be one call ahead; all know of the stop before this process goes on to the next
            self._stop = (mark + 2, reason)
            self._broadcast(kind="stop", mark=mark + 2, reason=reason)
            self._wait_for(lambda: self._others <= self._understood | self._done)

    def _tell_failure(self, sentence: str) -> None:
        self._dismiss(f"process 0 stopped: {sentence}")
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, FAREWELL)

    def _before_leaving(self, sentence: str) -> None:
        self._dismiss(sentence)
        deadline = time.monotonic() + FAREWELL
        while self._lines and time.monotonic() < deadline:
            for key, _ in self._selector.select(0.1):
                self._hear(key.fileobj)

    def _dismiss(self, sentence: str) -> None:
        self._broadcast(kind="leave", sentence=sentence)

    def _broadcast(self, **message: Any) -> None:
        for line in list(self._lines.values()):
            line.send(**message)

    def _hear(self, line: Line | socket.socket) -> Cause | None:
        if line is self._listener:
            with contextlib.suppress(OSError):
                self._selector.register(Line(self._listener.accept()[0]), selectors.EVENT_READ)
            return None
        process = next((number for number, known in self._lines.items() if known is line), None)
        try:
            for message in line.receive():
                if process is None:
                    process = self._welcome(line, message)
                elif message["kind"] == "failed":
                    return Cause(f"process {process} stopped: {message['sentence']}", told=True)
                else:
                    self._take_in(process, message)
        except (EOFError, ValueError, KeyError, TypeError):
            self._selector.unregister(line)
            line.close()
            with self._changed:
                self._lines.pop(process, None)
                self._changed.notify_all()
            return None if process is None or process in self._done else self._gone(process)
        return None

    def _welcome(self, line: Line, message: dict[str, Any]) -> int:
        """The number of the process that says hello; ValueError, after telling it, if there can be none such."""
        process, processes = int(message["process"]), int(message["processes"])
        complaint = None
        if processes != self.place.processes:
            complaint = f"process {process} was told of {processes} processes, and process 0 of {self.place.processes}"
        elif process not in self._others:
            complaint = f"there is no process {process} among {processes}"
        elif process in self._lines:
            complaint = f"two processes say that they are process {process}"
        if complaint is not None:
            line.send(kind="leave", sentence=f"{complaint}: check parallel.processes and parallel.process_id")
            raise ValueError(complaint)
        with self._changed:
            self._lines[process] = line
            self._marks[process] = (0, time.monotonic())
            self._changed.notify_all()
        return process

    def _take_in(self, process: int, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "value":
            self._collect(process, int(message["number"]), message["value"])
            return
        with self._changed:
            if kind == "beat" and int(message["mark"]) != self._marks[process][0]:
                self._marks[process] = (int(message["mark"]), time.monotonic())
            elif kind == "wish":
                self._wished = str(message["reason"])
            elif kind == "understood":
                self._understood.add(process)
            elif kind == "done":
                self._done.add(process)
            self._changed.notify_all()

    def _look_around(self, now: float) -> Cause | None:
        if self._mark != self._own_mark[0]:
            self._own_mark = (self._mark, now)
        working = {process: line for process, line in self._lines.items() if process not in self._done}
        for process, line in working.items():
            if now - line.heard > self._limits.heartbeat:
                return self._unheard(process)
        if not self._others <= self._lines.keys() | self._done or self._finished:
            return None
        marks = {process: self._marks[process] for process in working} | {0: self._own_mark}
        last = min(mark for mark, _ in marks.values())
        behind = [process for process, (mark, _) in marks.items() if mark == last]
        if now - max(marks[process][1] for process in behind) <= self._limits.step:
            return None
        limit = f"for {self._limits.step:g} s (parallel.step_timeout)"
        if len(behind) == len(marks):
            return Cause(f"no process has moved on {limit}: they hang, or a step takes longer than that")
        names = ", ".join(map(str, sorted(behind)))
        return Cause(f"process {names} has not moved on {limit} while the others wait")
