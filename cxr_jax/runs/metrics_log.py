"""What training measured: metrics.jsonl, one JSON object a line, written while training goes on.

A line's `kind` says what it is:

- `train`: step, epoch (passed, float), phase, loss, accuracy, learning_rate, images_per_second, seconds
- `validation`: step, epoch, phase, loss, accuracy, roc_auc, best (bool), seconds
- `end`: reason (finished, patience, interrupted or terminated), step, seconds

`seconds` is wall time since training began. It includes compilation, and leaves out the pause before a resumption.
Accuracies are from 0 to 1.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_text, writing

KINDS = ("train", "validation", "end")

FINISHED = ("finished", "patience")
"""Reasons of an `end` line after which nothing of a run is left to train."""

# An `end` line is far shorter.
_TAIL = 4096


class MetricsLog:
    """Appends lines to a metrics file; each line is on its way to the disk before `write` returns."""

    def __init__(self, path: str | Path, *, rewind_to: int | None = None, validation_due: bool = False) -> None:
        """Opens the file at `path`, creating it and its parents; a line torn by a kill is taken out first.

        Args:
            path: the metrics file.
            rewind_to: step of the state that training resumes from; lines of later steps, and of the end of the
                interrupted training, are dropped, because they will be written again.
            validation_due: whether that very step will be validated again.
        """
        self.path = Path(path)
        if self.path.is_file():
            lines = read_metrics(self.path)
            if rewind_to is not None:
                last_validation = rewind_to - 1 if validation_due else rewind_to
                newest = {"train": rewind_to, "validation": last_validation, "end": -1}
                lines = [line for line in lines if line["step"] <= newest[line["kind"]]]
            _rewrite(self.path, lines)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")

    def write(self, kind: str, **values: Any) -> None:
        """Appends one line; a number that is not finite is written as null, since JSON has no word for it.

        Raises:
            ValueError: `kind` is none of `KINDS`, or `step` is missing.
            UserError: the disk is full.
        """
        if kind not in KINDS or "step" not in values:
            raise ValueError(f"a line needs a kind of {KINDS} and a step; got {kind!r} with {sorted(values)}")
        with writing(self.path):
            self._file.write(_line({"kind": kind, **values}))
            self._file.flush()

    def close(self) -> None:
        """Closes the file; closing twice does nothing."""
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: str | Path, kinds: Collection[str] = KINDS) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file in order; a last line that was torn by a kill is left out.

    Args:
        path: the metrics file.
        kinds: kinds of lines that are wanted; those of training, which are nearly all, cost little if left out.

    Raises:
        UserError: there is no such file, or a line is not one that training writes.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: the run has no training curves")
    # What follows the last line break is empty, or a line torn by a kill.
    whole = path.read_bytes().split(b"\n")[:-1]
    skipped = _line({"kind": "train"})[:-2].encode() if "train" not in kinds else None
    lines = []
    for number, text in enumerate(whole, start=1):
        if skipped is not None and text.startswith(skipped):
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not (isinstance(line, dict) and line.get("kind") in KINDS and isinstance(line.get("step"), int)):
            raise UserError(f"{path}, line {number}: not a line of training metrics; restore the file or remove it")
        if line["kind"] in kinds:
            lines.append(line)
    return lines


def best_validation(path: str | Path) -> dict[str, Any] | None:
    """Returns the line of the best validation so far; None before the first one. UserError as `read_metrics`."""
    validations = read_metrics(path, kinds=("validation",))
    return next((line for line in reversed(validations) if line["best"]), None)


def is_finished(path: str | Path) -> bool:
    """Returns whether the last line of a metrics file says that training came to its end; only that line is read.

    False for a file that is missing, or whose last line says anything else or was torn by a kill.
    """
    line = newest_line(path)
    return line is not None and line.get("kind") == "end" and line.get("reason") in FINISHED


def newest_line(path: str | Path) -> dict[str, Any] | None:
    """Returns the last line of a metrics file, of which only the end is read.

    None for a file that is missing or empty, or whose last line is torn, as while it is written.
    """
    try:
        with Path(path).open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            *_, last, after = b"\n", *file.read().split(b"\n")
        line = json.loads(last)
    except (OSError, ValueError):
        return None
    return line if after == b"" and isinstance(line, dict) and line.get("kind") in KINDS else None


def _line(value: dict[str, Any]) -> str:
    """Returns `value` as one line of JSON, numpy numbers and non-finite ones included."""
    return json.dumps({key: _plain(entry) for key, entry in value.items()}, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Returns a number of numpy or jax as one of Python, and None for one that is not finite."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rewrite(path: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(_line(line) for line in lines)
    if text.encode() != path.read_bytes():
        write_text(path, text)
