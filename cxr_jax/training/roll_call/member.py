"""The end of a roll call at every process but the first."""

from __future__ import annotations

import selectors
import socket
import time
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.training.roll_call.line import Line
from cxr_jax.training.roll_call.roll_call import Cause, Leave, Limits, Place, RollCall


class Member(RollCall):
    """A process other than 0."""

    def __init__(self, place: Place, limits: Limits, leave: Leave) -> None:
        """Find process 0; UserError if that takes longer than `limits.startup`."""
        super().__init__(place, limits, leave)
        self._line = Line(self._connect())
        self._wished = self._dismissed = False
        self._selector.register(self._line, selectors.EVENT_READ)
        self._line.send(kind="hello", process=place.process, processes=place.processes)
        self._thread.start()

    def _connect(self) -> socket.socket:
        host, port = self.place.host, self.place.port
        deadline = time.monotonic() + self._limits.startup
        while True:
            try:
                connection = socket.create_connection((host, port), timeout=min(5.0, self._limits.startup))
            # also a name that the network does not know yet, or an address that the machine has no way to
            except OSError as error:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"process {self.place.process} could not reach process 0 at {host}:{port} within "
                        f"{self._limits.startup:g} s (parallel.startup_timeout; {error.strerror or error}): start all "
                        f"{self.place.processes} processes, and check the address and the firewall"
                    ) from None
                time.sleep(0.2)
            else:
                connection.settimeout(None)
                return connection

    def _offer(self, number: int, value: Any) -> None:
        self._line.send(kind="value", number=number, value=value)

    def _wish(self, mark: int, reason: str | None) -> None:
        if reason is not None and not self._wished:
            self._wished = True
            self._line.send(kind="wish", reason=reason)

    def _tell_failure(self, sentence: str) -> None:
        self._line.send(kind="failed", sentence=sentence)

    def _broadcast(self, **message: Any) -> None:
        self._line.send(**message)

    def _hear(self, line: Line) -> Cause | None:
        try:
            for message in line.receive():
                if message["kind"] == "leave":
                    return Cause(str(message["sentence"]), told=True)
                self._take_in(message)
        except (EOFError, ValueError, KeyError):
            self._selector.unregister(line)
            return None if self._dismissed else self._gone(0)
        return None

    def _take_in(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        with self._changed:
            if kind == "values":
                self._results[message["number"]] = message["values"]
            elif kind == "stop":
                self._stop = (message["mark"], message["reason"])
            elif kind == "done":
                self._dismissed = True
            self._changed.notify_all()
        if kind == "stop":
            self._line.send(kind="understood")

    def _before_leaving(self, sentence: str) -> None:
        """The end of the connection tells process 0."""

    def _look_around(self, now: float) -> Cause | None:
        silent = now - self._line.heard > self._limits.heartbeat
        return self._unheard(0) if silent and not self._dismissed else None
