"""Stopping between two steps when Ctrl-C is pressed or SIGTERM arrives."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from cxr_jax.training.processes import ALONE, ProcessGroup
from cxr_jax.training.progress import EndReason


class InterruptionError(Exception):
    """Work that can be taken up again later was left, because a signal asked training to stop."""


class Interruption:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it; a second one acts at once."""

    def __init__(self, group: ProcessGroup = ALONE) -> None:
        self.reason: EndReason | None = None  # why training stops, as far as it was asked for
        self._wish: EndReason | None = None  # the signal that this process has got
        self._group = group
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

    def ask(self) -> EndReason | None:
        """Returns why training is to stop here, or None; called wherever it can.

        Of several processes all get the same answer, soon after one of them has got a signal.
        """
        self.reason = self._group.agree_to_stop(self._wish)
        return self.reason

    def check(self) -> None:
        """Raises InterruptionError if training is to stop, as in `ask`; called wherever work may be left."""
        if self.ask() is not None:
            raise InterruptionError

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._wish = "interrupted" if number == signal.SIGINT else "terminated"
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
