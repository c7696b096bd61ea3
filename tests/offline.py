"""No way out: every connection that this process or its children try raises, and is noted."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

METHODS = ("connect", "connect_ex", "sendto", "bind")
FUNCTIONS = ("create_connection", "getaddrinfo", "gethostbyname")

IN_CHILDREN = f"""
import pathlib, socket
def refuse(*arguments, **options):
    with pathlib.Path({{attempts!r}}).open("a") as file:
        file.write(f"{{{{arguments}}}}\\n")
    raise OSError("a connection was tried")
for name in {METHODS}:
    setattr(socket.socket, name, refuse)
for name in {FUNCTIONS}:
    setattr(socket, name, refuse)
"""
"""Python runs a module sitecustomize at its start: so the processes that a command starts are held to it, too."""


@contextlib.contextmanager
def refused_connections(folder: Path) -> Iterator[Callable[[], list[str]]]:
    """Refuses connections inside the block; yields a function that lists those that were tried.

    What this needs is written into `folder`, which is made.
    """
    attempts = folder / "attempts"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IN_CHILDREN.format(attempts=str(attempts)))

    def refuse(*arguments, **options):
        with attempts.open("a") as file:
            file.write(f"{arguments}\n")
        raise OSError("a connection was tried")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        for name in METHODS:
            patch.setattr(socket.socket, name, refuse)
        for name in FUNCTIONS:
            patch.setattr(socket, name, refuse)
        yield lambda: attempts.read_text().splitlines() if attempts.exists() else []
