"""A connection between two processes that carries JSON objects, one a line."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

_CHUNK = 1 << 16
_LONGEST = 1 << 24  # bytes of a message; whatever sends more is not one of ours


class Line:
    """One end of a connection. Any thread may send; one thread receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._buffer, self._sending = connection, b"", threading.Lock()
        self.heard = time.monotonic()  # when something last came in

    def fileno(self) -> int:
        """What a selector waits for."""
        return self._connection.fileno()

    def send(self, **message: Any) -> None:
        """Send an object; whether it arrives shows only when the other end answers or is gone."""
        data = json.dumps(message).encode() + b"\n"
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(data)

    def receive(self) -> list[dict[str, Any]]:
        """The objects that have come in whole; waits for something to come in.

        Raises EOFError when the other end is gone, ValueError when it sends something else than JSON objects.
        """
        try:
            data = self._connection.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            raise EOFError
        self.heard = time.monotonic()
        *whole, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > _LONGEST:
            raise ValueError("a message without an end")
        messages = [json.loads(text) for text in whole]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("a message that is not an object")
        return messages

    def close(self) -> None:
        """Hang up; closing twice does nothing."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
