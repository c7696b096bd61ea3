"""Writing files so that a reader meets the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError

TEMPORARY_PREFIX = ".unfinished-"
"""Begins the name of everything that is still being written; what a killed process leaves can be deleted."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Numbers of the errors of a disk, or a quota, that has no room left."""

FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
"""Numbers of the errors of a missing permission."""

_MISPLACED = {
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.EBUSY,
    errno.EXDEV,
}


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Tells a full disk, a missing permission or an impossible place met inside the block as one sentence.

    Raises:
        UserError: in place of such an OSError; other errors pass through unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(f"the disk is full: {path} could not be written; free some space and try again") from error
        if error.errno in FORBIDDEN:
            raise UserError(
                f"no permission to write {path}: choose another place or change the rights of its folder"
            ) from error
        if error.errno in _MISPLACED:
            reason = os.strerror(error.errno)
            raise UserError(f"{path} could not be written ({reason}): choose another place") from error
        raise


def is_begun(folder: Path, content: str, *marks: str) -> bool:
    """Returns whether a folder that was asked for holds `content`, as its files `marks` tell; else it is free for it.

    Raises:
        UserError: it is a file, holds something else, or cannot be looked at.
    """
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: choose another place for the {content}")
        used = folder.is_dir() and any(folder.iterdir())
    if used and not all((folder / mark).is_file() for mark in marks):
        raise UserError(f"{folder} holds something else than a {content}: choose another place")
    return used


def require_free(folder: Path, content: str, *marks: str, replace: bool) -> None:
    """Raises UserError as `is_begun`, and if the folder holds `content` that is not to be replaced."""
    if is_begun(folder, content, *marks) and not replace:
        raise UserError(f"{folder} exists already; choose another place, or replace it by --replace")


def at_home(path: str | Path, *, instead: str = "write the path in full") -> Path:
    """Returns `path` with a leading `~` or `~user` as the home folder that it means.

    Raises:
        UserError: there is no such home folder, as in a container without users; `instead` says what to do.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} means a home folder, and there is none: {instead}") from error


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it becomes `path` when the block ends, and is removed if the block fails.

    The temporary name keeps the suffix of `path`. The block may create a file or a folder. A folder can only get a name
    that is free, or that of an empty folder. Parent folders are created.

    Raises:
        UserError: the disk is full, writing is not permitted or `path` cannot be a file there.
    """
    path = Path(path)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}"
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
        except BaseException:
            remove(temporary)
            raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path` atomically, creating parent folders; UserError as in `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        # Without this a power cut can leave the new name with no content.
        os.fsync(file.fileno())


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Returns rows of cells as CSV, every line ended by a newline alone."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def csv_text_of_records(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns rows by the names of their columns as CSV with a header, like `csv_text`; what a row lacks is empty.

    Raises ValueError for a row with a name that is no column.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` to `path` as UTF-8, atomically; UserError as in `atomic_path`.

    Bytes of a file name that are no text are escaped, in the way that JSON and Python have for it.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` to `path` as indented JSON, atomically; UserError as in `atomic_path`.

    Raises:
        ValueError: `value` holds NaN or an infinity, which JSON has no word for.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove(path: Path) -> None:
    """Deletes a file or folder, which may not exist; what cannot be deleted stays, without an error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
