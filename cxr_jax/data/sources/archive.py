"""Radiographs in a zip, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from cxr_jax.data.encoded import HEAD_BYTES, MAX_BYTES
from cxr_jax.data.sources.layout import find_layout
from cxr_jax.data.sources.passed_over import Stray
from cxr_jax.data.sources.source import Entry, Listing
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES

MAX_RATIO = 100
"""How many times larger than in the archive a file may be; JPEG and PNG hardly shrink at all."""

ALLOWANCE = 2**20
"""Bytes up to which the ratio does not matter: a small text file may shrink as it likes."""

_WINDOWS = (0, 10, 14)
"""Systems that a zip names as its maker where `\\` is a separator: FAT, NTFS and VFAT."""

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
"""What Python's zip reader raises on damage, encryption or a compression that it does not know."""


class ZipSource:
    """The data set anywhere in a zip, such as that of the Kaggle or the Mendeley release."""

    kind = "zip"

    def __init__(self, path: Path, classes: tuple[str, ...] = CLASS_NAMES) -> None:
        """Lists the members of the zip at `path`; UserError if it is no zip, unsafe or holds no set of `classes`."""
        self._path = path
        with open_archive(path) as archive:
            members = [member for member in archive.infolist() if member.filename and not member.is_dir()]
            for member in members:
                _check_member(member, path)
            check_ratio(sum(m.file_size for m in members), path.stat().st_size, str(path))
            found, strays = _placed(members)
            sizes = {place: member.file_size for place, member in found.items()}

            def head(place: str) -> bytes:
                return _read(archive, found[place].filename, HEAD_BYTES)

            layout = find_layout(sizes, source=str(path), head=head, strays=strays, classes=classes)
        # the reader finds a file by its name in the zip, which may have other separators
        entries = tuple(replace(entry, place=found[entry.place].filename) for entry in layout.entries)
        stamp = stamp_of_file(path)
        self.listing = Listing(entries, layout.passed_over, layout.notes, layout.phantom, stamp, classes)

    @contextlib.contextmanager
    def opened(self) -> Iterator[ZipReader]:
        """Opens the zip for reading."""
        with open_archive(self._path) as archive:
            yield ZipReader(archive)


class ZipReader:
    """Reads members of one open zip."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._lock = threading.Lock()

    def read(self, entry: Entry) -> bytes:
        """Returns one member, at most one byte more than is allowed; UserError if it is damaged or encrypted."""
        try:
            # Bounded whatever the archive's index says of the size.
            with self._lock:
                return _read(self._archive, entry.place, MAX_BYTES + 1)
        except UserError as error:
            raise UserError(f"{entry.file} {error}") from error


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens the zip at `path`; UserError if it is none or cannot be read."""
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise UserError(f"{path} is not a readable zip ({error}): it may be truncated, fetch it again") from error
    with archive:
        yield archive


def check_packing(member: zipfile.ZipInfo, path: Path) -> None:
    """Raises UserError if a member is packed by another method than deflate, or its size is absurd.

    The others that Python knows are never used for radiographs, and LZMA takes as much memory as the file asks for.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(
            f"{member.filename} in {path} is not packed by deflate: pack the files again, as zip or npz do it"
        )
    check_ratio(member.file_size, member.compress_size, f"{member.filename} in {path}")


def check_ratio(unpacked: int, packed: int, name: str) -> None:
    """Raises UserError if data would grow so much in unpacking that it must be meant to do harm."""
    if unpacked > max(MAX_RATIO * packed, ALLOWANCE):
        raise UserError(
            f"{name} would grow from {packed:,} to {unpacked:,} bytes in unpacking, more than {MAX_RATIO}-fold: "
            "this is no archive of radiographs and was not opened"
        )


def stamp_of_file(path: Path) -> str:
    """Returns a hash of name, size and modification time of one file, hexadecimal."""
    status = path.stat()
    return hashlib.sha256(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()


def _placed(members: list[zipfile.ZipInfo]) -> tuple[dict[str, zipfile.ZipInfo], list[Stray]]:
    """Returns the members of a zip that are files, by their paths with `/`, and what is no file or is there twice.

    Some programs of Windows write `\\` between folders, against the standard of zips. No file name there holds one.
    """
    slashes = any("/" in member.filename for member in members)
    found: dict[str, zipfile.ZipInfo] = {}
    strays = []
    for member in members:
        name = member.filename
        if not slashes or member.create_system in _WINDOWS:
            name = name.replace("\\", "/")
        if name.endswith("/"):
            continue
        place = str(PurePosixPath(name))
        if stat.S_ISLNK(member.external_attr >> 16):
            strays.append(Stray(place, str(PurePosixPath(place).parent), "a link, which a zip cannot follow"))
            continue
        if place in found:
            # the reader finds only the last one of this name
            strays.append(Stray(place, str(PurePosixPath(place).parent), "an older file of a name that is there twice"))
        found[place] = member
    return found, strays


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Returns up to `limit` bytes of one member; UserError, without its name, if it is damaged or encrypted."""
    try:
        with archive.open(name) as member:
            return member.read(limit)
    except (*DAMAGED, KeyError) as error:
        raise UserError(f"cannot be read from the zip ({error})") from error


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    """Raises UserError if the name of a member leaves the archive, or it is packed in a way that is not safe."""
    name = member.filename
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in (*posix.parts, *windows.parts):
        raise UserError(f"{path} holds a file whose path leaves the archive ({name!r}): it was not opened")
    check_packing(member, path)
