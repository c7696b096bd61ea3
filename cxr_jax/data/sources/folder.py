"""Radiographs in a folder: the official tree, or any folder of class folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from cxr_jax.data.decode import IMAGE_SUFFIXES
from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.data.file_names import natural_key
from cxr_jax.data.sources.layout import MAX_DEPTH, find_layout, is_hidden
from cxr_jax.data.sources.source import Entry, LeftOut, Listing
from cxr_jax.errors import UserError


class FolderSource:
    """The data set in or below one folder; links are followed."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        """List the files below `path`, without reading them; UserError if no data set is found."""
        self._path = path
        found = dict(_walk(path))
        if not found:
            raise UserError(f"{path} is empty: give the folder that holds the radiographs")
        layout = find_layout({place: size for place, (size, _) in found.items()}, source=str(path))
        digest = hashlib.sha256()
        for entry in layout.entries:
            digest.update(f"{entry.file}\0{found[entry.place]}\n".encode())
        for file in layout.left_out:
            digest.update(f"{file.file}\n".encode())
        self.listing = Listing(layout.entries, layout.left_out, layout.notes, layout.phantom, digest.hexdigest())

    @contextlib.contextmanager
    def opened(self) -> Iterator[FolderSource]:
        """Yield itself: nothing needs to be opened."""
        yield self

    def read(self, entry: Entry) -> bytes:
        """Return the bytes of one file, at most one more than is allowed; UserError if it cannot be read."""
        try:
            with (self._path / entry.place).open("rb") as file:
                # Not simply MAX_BYTES + 1: Python would set that much memory aside for every file.
                return file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)
        except OSError as error:
            raise UserError(f"{entry.file} cannot be read ({error.strerror})") from error


def radiographs_below(folder: Path) -> tuple[tuple[Path, ...], tuple[LeftOut, ...]]:
    """Return the images in `folder` and the folders in it, in natural order, and the files that are no images.

    What an image is, is told by its name alone; nothing is read. Hidden files are passed over.

    Raises:
        UserError: a folder cannot be listed.
    """
    names = sorted((place for place, _ in _walk(folder)), key=natural_key)
    images = tuple(folder / name for name in names if name.lower().endswith(IMAGE_SUFFIXES))
    left_out = tuple(
        LeftOut(str(folder / name), "no JPEG, PNG or DICOM file by its name")
        for name in names
        if not name.lower().endswith(IMAGE_SUFFIXES)
    )
    return images, left_out


def _walk(top: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield (path relative to `top`, (bytes, modification time in ns)) of every file that is not hidden."""
    seen = set()
    for folder, folders, names in os.walk(top, followlinks=True, onerror=_refuse):
        real = Path(folder).resolve()
        relative = Path(folder).relative_to(top)
        # A link to a folder above would be walked for ever.
        if real in seen or len(relative.parts) >= MAX_DEPTH:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            path = Path(folder, name)
            if is_hidden(name):
                continue
            try:
                status = path.stat()
            except OSError:  # a link that leads nowhere: listed, and told when it is read
                yield (relative / name).as_posix(), (0, 0)
                continue
            yield (relative / name).as_posix(), (status.st_size, status.st_mtime_ns)


def _refuse(error: OSError) -> None:
    """Raise UserError for a folder that cannot be listed, which os.walk would skip in silence."""
    raise UserError(f"{error.filename} cannot be read ({error.strerror}): check its permissions") from error
