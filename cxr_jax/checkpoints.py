"""Checkpoints: flat dictionaries of arrays with a small JSON beside them, written by orbax, verified when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax import Array
from orbax.checkpoint import v1 as orbax

from cxr_jax.errors import UserError
from cxr_jax.runs.files import TEMPORARY_PREFIX, writing

FORMAT_VERSION = 1
"""Version of what is stored; raised when an older reader would misread it. The seal stays as it is in every version."""

_ARRAYS = "arrays"
_UNFINISHED = ".orbax-checkpoint-tmp"
# orbax announces every step of a save, and it and asyncio print tracebacks of a failed one from other threads; what a
# person must know is raised as an error instead
for _name in ("absl", "asyncio"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint: its step, its arrays on the first device, and what was stored beside them."""

    step: int
    arrays: dict[str, Array]
    details: dict[str, Any]


class CheckpointWriter:
    """Saves checkpoints into one folder, asynchronously, and keeps the newest few."""

    def __init__(self, folder: Path, *, keep: int = 1, rewind_to: int | None = None) -> None:
        """Open or make `folder`; leftovers of a save that was killed are removed.

        Args:
            folder: the folder of these checkpoints.
            keep: how many of the newest stay.
            rewind_to: step of the state that training resumes from; checkpoints of later steps are removed, because
                what follows may go another way and would count as older than they are.

        Raises UserError if it cannot be written.
        """
        self.folder, self._keep = folder.absolute(), keep
        self._pending: Any = None
        self._size = 0  # of the newest checkpoint, in bytes
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(folder, rewind_to)
            self._checkpointer = self._open()

    def save(self, step: int, arrays: Mapping[str, Array], details: Mapping[str, Any]) -> None:
        """Save `arrays` and the JSON object `details` under `step`, replacing what is there under that step.

        Returns as soon as the arrays are copied; a save that is still under way is waited for first. Raises UserError
        if the disk is full or cannot be written; what was saved before stays.
        """
        self.wait()
        host = {name: np.asarray(value) for name, value in arrays.items()}
        metadata = {"format_version": FORMAT_VERSION, "sha256": content_hash(host), "details": dict(details)}
        metadata |= {"seal": _seal(metadata)}
        self._size = sum(value.nbytes for value in host.values())
        with _saving(self.folder, self._size):
            self._pending = self._checkpointer.save_checkpointables_async(
                step, {_ARRAYS: host}, custom_metadata=metadata, force=True, overwrite=True
            )

    def wait(self) -> None:
        """Return when nothing is being saved any more; raises UserError if the save failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with _saving(self.folder, self._size):
                pending.result()

    def close(self) -> None:
        """Finish the save under way and release the folder."""
        try:
            self.wait()
        finally:
            # a save that failed is raised again by orbax while it closes
            with _saving(self.folder, self._size):
                self._checkpointer.close()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> orbax.training.Checkpointer | _LoneCheckpointer:
        if jax.process_count() > 1:
            return _LoneCheckpointer(self.folder, self._keep)
        return orbax.training.Checkpointer(
            self.folder,
            preservation_policy=orbax.training.preservation_policies.LatestN(self._keep),
            cleanup_tmp_directories=True,
        )


class _LoneCheckpointer:
    """What is needed of orbax's Checkpointer, in one process of several: that one waits for the others to join in."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        for leftover in folder.glob(f"*{_UNFINISHED}*"):
            shutil.rmtree(leftover)

    def save_checkpointables_async(self, step: int, checkpointables: dict[str, Any], **options: Any) -> Any:
        """Save as orbax does; what is older than the newest few finished ones is removed first."""
        self._remove_old()
        del options["force"]
        with _by_itself():
            return orbax.save_checkpointables_async(self._folder / str(step), checkpointables, **options)

    def close(self) -> None:
        """Remove what is older than the newest few; nothing may be under way."""
        self._remove_old()

    def _remove_old(self) -> None:
        for step in saved_steps(self._folder)[: -self._keep]:
            _remove(self._folder, step)


@contextlib.contextmanager
def _by_itself() -> Iterator[None]:
    """Have orbax work in this process alone, whatever others train with it."""
    if jax.process_count() == 1:
        yield
        return
    this = jax.process_index()
    options = orbax.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )
    # in spite of these options it has all processes compare their paths, if it counts more than one
    counted_in = sys.modules[orbax.multihost.process_count.__module__]
    count = counted_in.process_count
    counted_in.process_count = lambda: 1
    try:
        with orbax.Context(multiprocessing_options=options):
            yield
    finally:
        counted_in.process_count = count


def _remove_leftovers(folder: Path, rewind_to: int | None) -> None:
    """Remove checkpoints later than `rewind_to`, and what a killed removal left of others."""
    for step in saved_steps(folder):
        if rewind_to is not None and step > rewind_to:
            _remove(folder, step)
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(leftover)


def _remove(folder: Path, step: int) -> None:
    """Remove the checkpoint of `step`."""
    # under a name that no reader takes for a checkpoint, should the removal be killed half-way
    moved = (folder / str(step)).rename(folder / f"{TEMPORARY_PREFIX}{step}")
    shutil.rmtree(moved)


@contextlib.contextmanager
def _saving(folder: Path, size: int) -> Iterator[None]:
    """Turn the errors of a failed save of `size` bytes into one sentence."""
    try:
        with writing(folder):
            yield
    # tensorstore reports a full disk in the text of its error, not as an OSError
    except Exception as error:
        if any(word in f"{error} {error.__cause__}" for word in ("RESOURCE_EXHAUSTED", "No space left", "Disk quota")):
            raise UserError(
                f"the disk is full: no checkpoint could be saved in {folder}; free at least {math.ceil(size / 1e6)} MB "
                "there and resume the run, what was saved before is intact"
            ) from error
        raise


def content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over the names, dtypes, shapes and bytes of `arrays`, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes() if value.ndim == 0 else memoryview(value).cast("B"))
    return digest.hexdigest()


def _seal(metadata: Mapping[str, Any]) -> str:
    """sha256 of all that is stored beside the arrays, in the one spelling that JSON has for it here."""
    stored = {name: value for name, value in metadata.items() if name != "seal"}
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def saved_steps(folder: Path) -> list[int]:
    """The steps that have a finished checkpoint in `folder`, oldest first; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit())


def read_newest(folder: Path, warn: Callable[[str], None] | None = None) -> Checkpoint:
    """The newest checkpoint of `folder` whose content is what was saved.

    A damaged one is skipped, and `warn` is called with a sentence about it. Raises UserError if there is none at all,
    none that is intact, or one that a newer version of the project wrote.
    """
    steps = saved_steps(folder)
    if not steps:
        raise UserError(f"there is no checkpoint in {folder}; train the run first")
    for step in reversed(steps):
        checkpoint = _read(folder, step)
        if checkpoint is not None:
            return checkpoint
        if warn is not None:
            warn(f"the checkpoint of step {step} in {folder} is damaged and was passed over")
    raise UserError(f"every checkpoint in {folder} is damaged (steps {', '.join(map(str, steps))}); train again")


def _read(folder: Path, step: int) -> Checkpoint | None:
    """The checkpoint of `step`, or None if it is damaged in whatever way; UserError if it is of a newer format."""
    path = folder.absolute() / str(step)
    # a damaged file can fail anywhere inside orbax, tensorstore or JSON; all of it means the same to the reader
    try:
        with _by_itself():
            stored = orbax.checkpointables_metadata(path)
        metadata = stored.custom_metadata
        # a checkpoint without either is older than format versions
        if {"format_version", "seal"} & metadata.keys() and metadata["seal"] != _seal(metadata):
            return None
    except Exception:
        return None
    version = metadata.get("format_version", 1)
    if version > FORMAT_VERSION:
        raise UserError(
            f"the checkpoint of step {step} in {folder} was written by a newer cxr_jax (format {version}, this one "
            f"reads up to {FORMAT_VERSION}): update cxr_jax"
        )
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    try:
        shapes = {
            name: jax.ShapeDtypeStruct(entry.shape, entry.dtype, sharding=sharding)
            for name, entry in stored.metadata[_ARRAYS].items()
        }
        with _by_itself():
            arrays = orbax.load_checkpointables(path, {_ARRAYS: shapes})[_ARRAYS]
        intact = content_hash({name: np.asarray(value) for name, value in arrays.items()}) == metadata["sha256"]
        return Checkpoint(step, arrays, metadata["details"]) if intact else None
    except Exception:
        return None
