"""How long work reports its progress, without knowing who watches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Track(Protocol):
    """Opens a display of one stretch of work."""

    def __call__(self, description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Shows work of `total` steps while the block runs; the yielded function is told how many more are done."""


@runtime_checkable
class Waiting(Protocol):
    """Opens a display of work whose end is not known."""

    def __call__(self, description: str) -> AbstractContextManager[None]:
        """Shows that the work is under way while the block runs."""


def unseen(description: str) -> AbstractContextManager[None]:
    """Shows nothing."""
    del description
    return contextlib.nullcontext()


@contextlib.contextmanager
def silently(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows nothing."""
    del description, total
    yield lambda steps: None
