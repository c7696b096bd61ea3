"""Checkpoints: flat dictionaries of arrays with a small JSON beside them, written by orbax, verified when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cxr_jax.errors import UserError
from cxr_jax.runs.files import TEMPORARY_PREFIX, writing

if TYPE_CHECKING:
    import orbax.checkpoint as orbax

FORMAT_VERSION = 1
"""Version of what is stored; raised when an older reader would misread it. The seal stays as it is in every version."""

Checkpointer = TypeVar("Checkpointer", bound="orbax.Checkpointer")

_ARRAYS = "arrays"
_UNFINISHED = ".orbax-checkpoint-tmp"
_PLAIN_PATH = re.compile(r"[\w/ .,=+@-]+")
DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux shows the files that this process has open; other systems have no such folder."""


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint: its step, its arrays on the first device, and what was stored beside them."""

    step: int
    arrays: dict[str, Array]
    details: dict[str, Any]
    sha256: str = ""  # `content_hash` of the arrays


class CheckpointWriter:
    """Saves checkpoints into one folder, asynchronously, and keeps the newest few.

    The first that is saved and the last are read back, and compared with what was to be saved.
    """

    def __init__(self, folder: Path, *, keep: int = 1, rewind_to: int | None = None) -> None:
        """Opens or makes `folder`; leftovers of a save that was killed are removed.

        Args:
            folder: the folder of these checkpoints.
            keep: how many of the newest stay.
            rewind_to: step of the state that training resumes from; checkpoints of later steps are removed, because
                what follows may go another way and would count as older than they are.

        Raises UserError if it cannot be written.
        """
        self.folder, self._keep = folder.absolute(), keep
        self._pending: int | None = None  # step of the save that is under way
        self._saved: int | None = None  # step of the newest save that is finished
        self._verified: int | None = None  # step of the newest that was read back
        self._size = 0  # of the newest checkpoint, in bytes
        self._opened = contextlib.ExitStack()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(folder, rewind_to)
            self._plain = self._opened.enter_context(_plainly_named(self.folder))
        self._checkpointer: orbax.AsyncCheckpointer | None = None  # of the first save

    def save(self, step: int, arrays: Mapping[str, Array], details: Mapping[str, Any]) -> None:
        """Saves `arrays` and the JSON object `details` under `step`, replacing what is there under that step.

        Returns as soon as the arrays are copied; a save that is still under way is waited for first. Raises UserError
        if the disk is full or cannot be written; what was saved before stays.
        """
        # it takes a third of a second, for which the first step of a run need not wait
        import orbax.checkpoint as orbax

        self.wait()
        if self._checkpointer is None:
            self._checkpointer = _alone(orbax.AsyncCheckpointer)
        host = {name: np.asarray(value) for name, value in arrays.items()}
        metadata = {"format_version": FORMAT_VERSION, "sha256": content_hash(host), "details": dict(details)}
        metadata |= {"seal": _seal(metadata)}
        self._size = sum(value.nbytes for value in host.values())
        with _saving(self.folder, self._size):
            if (self.folder / str(step)).exists():
                _remove(self.folder, step)
            what = orbax.args.Composite(**{_ARRAYS: orbax.args.PyTreeSave(host)})
            self._checkpointer.save(self._plain / str(step), args=what, custom_metadata=metadata)
        self._pending = step

    def wait(self) -> None:
        """Returns when nothing is being saved any more; raises UserError if the save failed."""
        step, self._pending = self._pending, None
        if step is None:
            return
        with _saving(self.folder, self._size):
            self._checkpointer.wait_until_finished()
        self._saved = step
        if self._verified is None:
            self._verify()
        for old in saved_steps(self.folder)[: -self._keep]:
            _remove(self.folder, old)

    def close(self) -> None:
        """Finishes the save under way, reads it back, and releases the folder."""
        with self._opened:
            try:
                self.wait()
                if self._verified != self._saved:
                    self._verify()
            finally:
                # a save that failed is raised again by orbax while it closes
                with _saving(self.folder, self._size):
                    if self._checkpointer is not None:
                        self._checkpointer.close()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _verify(self) -> None:
        """Reads the newest checkpoint back; UserError if it does not hold what was saved."""
        if _stored(self.folder, self._saved) is None:
            raise UserError(
                f"the checkpoint of step {self._saved} was written to {self.folder} and does not come back as it was: "
                "the disk or its file system loses what is written; train in another place"
            )
        self._verified = self._saved


def _alone(kind: type[Checkpointer]) -> Checkpointer:
    """Returns a checkpointer of `kind` that works in this process alone, whatever others train with it."""
    import orbax.checkpoint as orbax

    this = jax.process_index()
    options = orbax.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )
    handler = orbax.CompositeCheckpointHandler(
        composite_options=orbax.CompositeOptions(multiprocessing_options=options),
        **{_ARRAYS: orbax.PyTreeCheckpointHandler(multiprocessing_options=options)},
    )
    return kind(handler, multiprocessing_options=options)


@contextlib.contextmanager
def _plainly_named(folder: Path) -> Iterator[Path]:
    """Yields a path of `folder`, which exists and is absolute, that holds as long as the block runs.

    orbax looks for what it has written by a pattern in which brackets of the folder's own name count, and tensorstore
    takes a backslash for a slash, and names that are no Unicode not at all. Both get such a folder by the number under
    which this process has it open.

    Raises:
        UserError: its own name will not do, and the system has no such numbers.
    """
    if _PLAIN_PATH.fullmatch(str(folder)):
        yield folder
        return
    if not DESCRIPTORS.is_dir():
        raise UserError(
            f"no checkpoints can be kept in {folder} on this system: choose a place whose path has letters, digits, "
            "spaces and . , = + @ - _ alone"
        )
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield DESCRIPTORS / str(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path, rewind_to: int | None) -> None:
    """Removes checkpoints later than `rewind_to`, and what a killed save or removal left of others."""
    for step in saved_steps(folder):
        if rewind_to is not None and step > rewind_to:
            _remove(folder, step)
    for pattern in (f"{TEMPORARY_PREFIX}*", f"*{_UNFINISHED}*"):
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover)


def _remove(folder: Path, step: int) -> None:
    """Removes the checkpoint of `step`."""
    # under a name that no reader takes for a checkpoint, should the removal be killed half-way
    moved = (folder / str(step)).rename(folder / f"{TEMPORARY_PREFIX}{step}")
    shutil.rmtree(moved)


@contextlib.contextmanager
def _saving(folder: Path, size: int) -> Iterator[None]:
    """Turns the errors of a failed save of `size` bytes into one sentence."""
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
    """Returns sha256 over the names, dtypes, shapes and bytes of `arrays`, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes() if value.ndim == 0 else memoryview(value).cast("B"))
    return digest.hexdigest()


def _seal(metadata: Mapping[str, Any]) -> str:
    """Returns sha256 of all that is stored beside the arrays, in the one spelling that JSON has for it here."""
    stored = {name: value for name, value in metadata.items() if name != "seal"}
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def saved_steps(folder: Path) -> list[int]:
    """Returns the steps that have a finished checkpoint in `folder`, oldest first; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit())


def read_newest(folder: Path, warn: Callable[[str], None] | None = None) -> Checkpoint:
    """Returns the newest checkpoint of `folder` whose content is what was saved.

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
    """Returns the checkpoint of `step`, or None if it is damaged in whatever way; UserError if it is of a newer
    format.
    """
    stored = _stored(folder, step)
    if stored is None:
        return None
    host, metadata = stored
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    # a copy, because a device of a CPU would otherwise share the memory with numpy, and a step takes it over
    arrays = {name: jax.device_put(jnp.array(value), sharding) for name, value in host.items()}
    return Checkpoint(step, arrays, metadata["details"], metadata["sha256"])


def _stored(folder: Path, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Returns arrays of the checkpoint of `step`, and what is stored beside them; None if it is damaged, UserError if
    it is of a newer format.
    """
    import orbax.checkpoint as orbax

    with _plainly_named(folder.absolute()) as plain, _alone(orbax.Checkpointer) as checkpointer:
        path = plain / str(step)
        # a damaged file can fail anywhere inside orbax, tensorstore or JSON; all of it means the same to the reader
        try:
            found = checkpointer.metadata(path)
            metadata = found.custom_metadata
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
        try:
            # numpy's arrays, so that what is damaged, or only looked at, takes no memory of a device
            as_numpy = {name: orbax.RestoreArgs(np.ndarray) for name in found.item_metadata[_ARRAYS].tree}
            what = orbax.args.Composite(**{_ARRAYS: orbax.args.PyTreeRestore(restore_args=as_numpy)})
            host = checkpointer.restore(path, args=what)[_ARRAYS]
            return (host, metadata) if content_hash(host) == metadata["sha256"] else None
        except Exception:
            return None
