"""Radiographs in a folder: the official tree, or any folder of class folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cxr_jax.data.encoded import HEAD_BYTES, MAX_BYTES
from cxr_jax.data.file_names import natural_key
from cxr_jax.data.sources.layout import find_layout
from cxr_jax.data.sources.leftovers import HIDDEN, MASKS, SYSTEM, leftover, names_masks
from cxr_jax.data.sources.passed_over import TOP, Stray, as_text
from cxr_jax.data.sources.recognition import passed_by_name, why_no_image
from cxr_jax.data.sources.source import Entry, LeftOut, Listing
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES

_KINDS = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a device"))
_REFUSED = (errno.EACCES, errno.EPERM)


LINKS_TOLD = 20
"""Folders of which it is told where else they were read."""


class FolderSource:
    """The data set in or below one folder; links are followed."""

    kind = "folder"

    def __init__(self, path: Path, classes: tuple[str, ...] = CLASS_NAMES) -> None:
        """Lists the files below `path`, without reading images; UserError if no data set of `classes` is found."""
        self._path = path
        tree = _walk(path)
        if not tree.found and not tree.strays:
            raise UserError(f"{path} is empty: give the folder that holds the radiographs")
        sizes = {place: size for place, (size, _) in tree.found.items()}
        layout = find_layout(
            sizes, source=str(path), head=lambda place: head_of(path / place), strays=tree.strays, classes=classes
        )
        digest = hashlib.sha256()
        for entry in layout.entries:
            digest.update(f"{entry.file}\0{tree.found[entry.place]}\n".encode(errors="surrogateescape"))
        stamp = digest.hexdigest()
        self.listing = Listing(layout.entries, layout.passed_over, layout.notes, layout.phantom, stamp, classes)

    @contextlib.contextmanager
    def opened(self) -> Iterator[FolderSource]:
        """Yields itself: nothing needs to be opened."""
        yield self

    def read(self, entry: Entry) -> bytes:
        """Returns the bytes of one file, at most one more than is allowed; UserError if it cannot be read."""
        return bytes_of(self._path / entry.place, entry.file)


def bytes_of(path: Path, name: str) -> bytes:
    """Returns the bytes of a file, at most one more than is allowed; UserError, which calls it `name`, if it cannot be
    read.
    """
    try:
        with _opened(path) as file:
            # Not simply MAX_BYTES + 1: Python would set that much memory aside for every file.
            return file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror})") from error


def files_below(folder: Path) -> tuple[dict[str, tuple[int, int]], tuple[Stray, ...]]:
    """Returns bytes and modification time in ns of every file below `folder` by its path in it, and what is no file.

    Raises:
        UserError: a folder cannot be listed.
    """
    tree = _walk(folder)
    return tree.found, tuple(tree.strays)


def head_of(path: Path) -> bytes:
    """Returns the beginning of a file; UserError, without its name, if it cannot be read."""
    try:
        with _opened(path) as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})") from error


def radiographs_below(folder: Path) -> tuple[tuple[Path, ...], tuple[LeftOut, ...]]:
    """Returns the images in `folder` and the folders in it, in natural order, and the files that are none, with
    reasons.

    What an image is, is told by its name, and by its first bytes where its suffix does not tell it. Hidden files and
    what operating systems leave behind are passed over.

    Raises:
        UserError: a folder cannot be listed.
    """
    tree = _walk(folder)
    images = []
    left_out = [LeftOut(str(folder / stray.file), stray.reason) for stray in tree.strays]
    for place in tree.found:
        stray = passed_by_name(place)
        if stray is not None:
            reason = stray.reason
        elif any(map(names_masks, PurePosixPath(place).parts[:-1])):
            reason = MASKS
        else:
            reason = why_no_image(place, lambda place: head_of(folder / place))
        if reason is None:
            images.append(place)
        elif reason not in (HIDDEN, SYSTEM):
            left_out.append(LeftOut(str(folder / place), reason))
    images.sort(key=natural_key)
    return tuple(folder / place for place in images), tuple(sorted(left_out, key=lambda entry: natural_key(entry.file)))


@dataclass
class _Tree:
    """What lies below a folder."""

    found: dict[str, tuple[int, int]] = field(default_factory=dict)  # (bytes, modification time in ns) by path
    strays: list[Stray] = field(default_factory=list)  # what is no file that can be read


def _walk(top: Path) -> _Tree:
    """Returns every file below `top`, by its path relative to it.

    A folder that can be reached by several ways is read once: where it lies, or by the first link that leads to it.
    A link to a folder above it would be walked for ever.
    """
    tree = _Tree()
    folders, links = deque([TOP]), deque()
    read_at: dict[str, str] = {}
    again: list[tuple[str, str]] = []
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        real = os.path.realpath(top / folder)
        if real in read_at:
            again.append((folder, read_at[real]))
            continue
        read_at[real] = folder
        for entry in _entries(top, folder, tree):
            place = str(PurePosixPath(folder, entry.name))
            try:
                status = entry.stat()
            except OSError:  # a link that leads nowhere: listed, and told when it is read
                tree.found[place] = (0, 0)
                continue
            if stat.S_ISDIR(status.st_mode):
                (links if entry.is_symlink() else folders).append(place)
            elif stat.S_ISREG(status.st_mode):
                tree.found[place] = (status.st_size, status.st_mtime_ns)
            else:
                kind = next((words for applies, words in _KINDS if applies(status.st_mode)), "a device")
                tree.strays.append(Stray(place, folder, f"no regular file, but {kind}"))
    tree.strays += _read_elsewhere(again, tree.found)
    return tree


def _read_elsewhere(again: list[tuple[str, str]], found: Mapping[str, object]) -> Iterator[Stray]:
    """Yields the folders that are read at another place, given as pairs of both paths; none that lies in that place."""
    for number, (folder, place) in enumerate(again):
        if PurePosixPath(folder).is_relative_to(place):
            continue
        count = sum(path.startswith(f"{place}/") for path in found)
        same = as_text(place) if number < LINKS_TOLD else "another one"
        yield Stray(folder, folder, f"the same folder as {same}, which is read there", count)


def _entries(top: Path, folder: str, tree: _Tree) -> list[os.DirEntry[str]]:
    """Returns what lies in a folder, sorted by name.

    Raises:
        UserError: it cannot be listed. One that holds no radiographs by its name, such as lost+found, is a stray then.
    """
    try:
        with os.scandir(top / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if any(map(leftover, PurePosixPath(folder).parts)):
            tree.strays.append(Stray(folder, folder, f"cannot be read ({error.strerror})"))
            return []
        advice = "check its permissions" if error.errno in _REFUSED else "check the folder and its disk"
        raise UserError(f"{top / folder} cannot be read ({error.strerror}): {advice}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading; OSError for anything else, such as a pipe that has taken its place."""
    # without waiting: a pipe that nobody writes to would never be opened
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 (a descriptor)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        yield file
