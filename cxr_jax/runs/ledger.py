"""Every look that was taken at the test set of a run: ledger.jsonl, appended and never rewritten.

`counted_looks` counts the looks of all runs at the same images, so that a run that was made only to try something
counts as well.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.runs.files import writing
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder

_WITHOUT_PREDICTIONS = {"degraded", "occluded", "localised"}
"""Marks of the looks that leave no predictions on test."""


def append_look(run: RunFolder, look: dict[str, Any], ledger: Path | None = None) -> dict[str, Any]:
    """Appends one look (checkpoint, threshold, result ...) and return it with its date and schema version.

    `ledger` is another one than that of the run's own test images.

    Safe when several processes look at once: the line is written under a lock of the file.

    Raises:
        UserError: the ledger cannot be written.
        ValueError: `look` holds NaN or an infinity.
    """
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    entry = {"schema_version": SCHEMA_VERSION, "date": date, **look}
    append_line(ledger or run.ledger, entry)
    return entry


def append_line(path: Path, entry: dict[str, Any]) -> None:
    """Appends one line of JSON, safely beside other processes.

    Raises:
        UserError: it cannot be written.
        ValueError: `entry` holds NaN or an infinity.
    """
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    with writing(path), path.open("a+b") as file:
        # Some network file systems know no locks; a line is still appended in one piece there
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # A writer killed in mid-line must not swallow this line too.
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        # a byte of a path that is no text is written as JSON escapes it
        file.write(line.encode(errors="backslashreplace"))
        file.flush()
        os.fsync(file.fileno())


def read_looks(run: RunFolder) -> list[dict[str, Any]]:
    """Returns every look in order; an empty list if there was none.

    Raises:
        UserError: a line cannot be read; looks are never dropped in silence.
    """
    return read_entries(run.ledger) if run.ledger.is_file() else []


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Returns the entries of a ledger, which exists, in order; UserError as `read_looks`."""
    entries = []
    # By line breaks alone: str.splitlines would cut at characters that may stand inside of a text.
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise UserError(f"{path}, line {number}: not an entry of the ledger; repair the line by hand")
        entries.append(entry)
    return entries


def look_of_predictions(run: RunFolder) -> tuple[int, dict[str, Any]] | None:
    """Returns the last look that left the predictions of a run on test, with its number; None if there was none.

    Looks at changed images, and at maps that are held against boxes, leave none.

    Raises:
        UserError: as `read_looks`.
    """
    numbered = reversed([*enumerate(read_looks(run), start=1)])
    return next((look for look in numbered if not _WITHOUT_PREDICTIONS & set(look[1])), None)


def is_evaluated(run: RunFolder, step: int | None, sha256: str) -> bool:
    """Returns whether the network with this checkpoint is the one that left the predictions of a run on test.

    Thresholds, bounds and references in the folder of the run are then of this network. It is false before the first
    look, and after a run was evaluated and then trained on. A ledger of an earlier version tells the step alone.

    Raises:
        UserError: as `read_looks`.
    """
    found = look_of_predictions(run)
    return found is not None and _is_by(found[1], step, sha256)


def has_fixed(run: RunFolder, step: int | None, sha256: str) -> bool:
    """Returns whether a run holds an operating point of the network with this checkpoint.

    Before the first look it counts as that of the network that there is; cross-validation fixes it for an ensemble.

    Raises:
        UserError: as `read_looks`.
    """
    if not run.operating_point.is_file():
        return False
    found = look_of_predictions(run)
    return found is None or _is_by(found[1], step, sha256)


def _is_by(look: dict[str, Any], step: int | None, sha256: str) -> bool:
    """Returns whether the network with this checkpoint took a look; one of an earlier version tells the step alone."""
    told = look.get("checkpoint_sha256")
    return told == sha256 if told else look.get("step") == step


def require_that_of_the_look(run: RunFolder, sha256: str) -> None:
    """Raises UserError if predictions on test, told by their hash, are not those that the ledger has of the last look.

    A ledger of an earlier version has no hash to tell it by.
    """
    number, look = look_of_predictions(run) or (0, {})
    told = look.get("predictions_sha256")
    if told is not None and told != sha256:
        raise UserError(
            f"{run.predictions_of('test')} is not what look {number} at test gave, by its sha256 in {run.ledger}: "
            "put that table back, or evaluate without --stored, which is another look"
        )
