"""Folders held by one process at a time, and what processes that were killed leave in them.

The locks are the kernel's (flock): they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cxr_jax.errors import UserError
from cxr_jax.runs.files import TEMPORARY_PREFIX, remove, writing
from cxr_jax.runs.folder import RunFolder

STALE_AFTER = 60.0
"""Seconds without a change after which something unfinished that nobody holds is left over; it is held long before."""


@contextlib.contextmanager
def held(path: Path, busy: str, *, shared: bool = False) -> Iterator[None]:
    """Holds the folder or file at `path`, which must exist, while the block runs.

    Args:
        path: what is held; nothing is written to it.
        busy: the sentence for whoever comes second.
        shared: others may hold it at the same time if they say so too.

    Raises:
        UserError: another process holds it.
    """
    with writing(path):
        descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(busy) from error
        except OSError:
            # Some network file systems know no locks; files are still written atomically there.
            pass
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def evaluating(run: RunFolder, *, reading: bool = False) -> Iterator[None]:
    """Holds the evaluation of a run while the block writes it, or, if `reading`, copies it.

    Raises:
        UserError: another process is evaluating the run, or publishes it while this one wants to evaluate it.
    """
    with writing(run.predictions):
        run.predictions.mkdir(parents=True, exist_ok=True)
    busy = f"another process is evaluating or publishing {run.path}: wait until it has ended"
    with held(run.predictions, busy, shared=reading):
        yield


@contextlib.contextmanager
def held_for_training(run: RunFolder) -> Iterator[None]:
    """Holds a run, whose folder must exist, while the block trains it: two would overwrite each other's metrics.

    Raises:
        UserError: another process is training the run.
    """
    with held(run.path, f"another process is training {run.path}: wait until it has ended"):
        yield


def remove_stale(folder: Path) -> list[Path]:
    """Deletes what killed processes left unfinished in `folder`, and returns what it was.

    Deleted is only what has a name that `files.atomic_path` makes, what no living process holds, and what has not
    changed for STALE_AFTER seconds. Whoever writes in a folder that is tidied so must hold what it writes.
    """
    removed = []
    for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}{'[0-9a-f]' * 8}-*")):
        with contextlib.suppress(OSError, UserError):
            if time.time() - path.lstat().st_mtime < STALE_AFTER:
                continue
            with held(path, "in use"):
                remove(path)
            removed.append(path)
    return removed
