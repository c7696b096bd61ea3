"""Stopping between two steps when Ctrl-C is pressed or SIGTERM arrives."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from cxr_jax.training.progress import EndReason


class InterruptionError(Exception):
    """Work that can be taken up again later was left, because a signal asked training to stop."""


class Interruption:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it; a second one acts at once."""

    def __init__(self) -> None:
        self.reason: EndReason | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        # Python lets only the main thread install handlers; elsewhere the caller's stay in force
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def check(self) -> None:
        """Raise InterruptionError if a signal has arrived; called wherever work may be left."""
        if self.reason is not None:
            raise InterruptionError

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.reason = "interrupted" if number == signal.SIGINT else "terminated"
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
