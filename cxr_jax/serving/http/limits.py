"""What the service takes, and the refusal of what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

RETRY_AFTER = {"Retry-After": "1"}
"""With a refusal for want of room: when to come again, in seconds."""

UPLOADS_HELD = 4
"""Uploads of the largest size that are held in memory together."""


class RefusalError(Exception):
    """Why a request is not answered, in one sentence, with the status that says it to a program."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})


@dataclass(frozen=True)
class Limits:
    """The bounds of one request."""

    request_bytes: int
    files: int
    upload_seconds: float  # for the whole of it to arrive
    answer_seconds: float  # for the network to answer, after that


@dataclass
class Room:
    """Memory for what was uploaded and is not yet answered."""

    total: int
    _taken: int = field(default=0, init=False)

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Yields a share that begins empty, and is given back after the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self._taken -= share.size

    def take(self, size: int) -> None:
        """Takes so many bytes; RefusalError if there is no room for them now."""
        if self._taken + size > self.total:
            raise RefusalError(503, "too much is being uploaded at this moment: try again in a second", RETRY_AFTER)
        self._taken += size


@dataclass
class Share:
    """What one request takes of the room."""

    room: Room
    size: int = 0

    def grow(self, size: int) -> None:
        """Takes so many bytes more; RefusalError if there is no room for them now."""
        self.room.take(size)
        self.size += size
