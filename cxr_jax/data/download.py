"""Fetching the release of the radiographs that needs no account, with resume and proof of what came."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cxr_jax import __version__
from cxr_jax.data.progress import Track, silently
from cxr_jax.errors import UserError
from cxr_jax.runs import files


@dataclass(frozen=True)
class Release:
    """One published file."""

    url: str
    file: str  # name under which it is kept
    size: int  # bytes
    sha256: str  # hexadecimal
    page: str  # where a person can fetch it by hand
    command: str = "cxr-jax prepare FILE"  # what that person runs then


MENDELEY = Release(
    url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
    "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
    file="ChestXRay2017.zip",
    size=1_235_512_464,
    sha256="13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36",
    page="https://data.mendeley.com/datasets/rscbjbr9sj",
)
"""Kermany, Zhang, Goldbaum: labelled OCT and chest X-ray images, CC BY 4.0; only the chest radiographs."""

CHUNK = 2**20

_FINAL_STATUSES = {400, 401, 403, 404, 405, 410, 451}
"""Answers that stay the same however often one asks."""


@dataclass(frozen=True)
class Patience:
    """How long a download waits and how often it tries again."""

    timeout: float = 30.0  # seconds without a byte after which a connection is given up
    attempts: int = 6  # in a row that bring no byte
    pause: float = 2.0  # seconds before the second attempt, doubled before each further one


def download(release: Release, folder: Path, *, track: Track = silently, patience: Patience = Patience()) -> Path:
    """Returns the path of `release` in `folder`, fetched unless it is there.

    What an interrupted download brought is kept as `.unfinished-FILE` and continued. The file gets its name only after
    size and sha256 have been found right.

    Raises:
        UserError: no connection, another file than the published one, no space, no permission, or another download of
            it is running.
    """
    target = folder / release.file
    if target.exists():
        _verify(target, release, "remove it to fetch it again", track)
        return target
    partial = folder / f"{files.TEMPORARY_PREFIX}{release.file}"
    with files.writing(partial):
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file, _locked(file, partial):
            _fetch(release, file, track, patience)
            file.flush()
            try:
                _verify(partial, release, "what came was thrown away, try again later", track)
            except UserError:
                partial.unlink()
                raise
            partial.replace(target)
    return target


def _fetch(release: Release, file: BinaryIO, track: Track, patience: Patience) -> None:
    """Appends what is missing of `release` to `file`, trying again as long as bytes arrive."""
    if file.tell() > release.size:
        _empty(file)
    _require_space(release, Path(file.name).parent, already=file.tell())
    failures = 0
    with track("Downloading", release.size) as advance:
        advance(file.tell())
        while (start := file.tell()) < release.size:
            try:
                _continue(release, file, advance, patience.timeout)
                reason = "the connection ended early"
            except (OSError, http.client.HTTPException) as error:
                reason = _reason(error)
                if isinstance(error, urllib.error.HTTPError) and error.code in _FINAL_STATUSES:
                    raise UserError(_by_hand(release, reason)) from error
            failures = 0 if file.tell() > start else failures + 1
            if failures >= patience.attempts:
                kept = f"{file.tell():,} of {release.size:,} bytes are kept, and the same command continues there"
                raise UserError(_by_hand(release, f"{reason}; {kept}"))
            if file.tell() < release.size:
                time.sleep(patience.pause * 2 ** max(failures - 1, 0) if failures else 0.0)


def _continue(release: Release, file: BinaryIO, advance: Callable[[int], None], timeout: float) -> None:
    """Asks the server for what is missing and append it, until the connection ends or all is there."""
    headers = {"User-Agent": f"cxr-jax/{__version__}", "Range": f"bytes={file.tell()}-"}
    with urllib.request.urlopen(urllib.request.Request(release.url, headers=headers), timeout=timeout) as answer:
        start, total = _promised(answer)
        if total is not None and total != release.size:
            raise UserError(_by_hand(release, f"the server offers {total:,} bytes instead of {release.size:,}"))
        if start != file.tell():
            # A server that cannot continue sends everything again.
            advance(-file.tell())
            _empty(file)
            if start:
                raise UserError(_by_hand(release, "the server sent another part of the file than was asked for"))
        # read1 gives what has arrived; read would lose it when the connection stalls.
        while data := answer.read1(min(CHUNK, release.size - file.tell() + 1)):
            with files.writing(file.name):
                file.write(data)
            advance(len(data))
            if file.tell() > release.size:
                _empty(file)
                raise UserError(_by_hand(release, f"the server sent more than {release.size:,} bytes"))


def _empty(file: BinaryIO) -> None:
    """Throws away what `file` holds and stands at its beginning."""
    file.seek(0)
    file.truncate()


def _promised(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Returns (first byte that the answer holds, size of the whole file or None)."""
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match:
            return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length and length.isdecimal() else None


def _verify(path: Path, release: Release, advice: str, track: Track) -> None:
    """Raises UserError unless `path` has the size and sha256 of `release`."""
    if path.stat().st_size == release.size:
        digest = hashlib.sha256()
        with path.open("rb") as file, track("Checking", release.size) as advance:
            while data := file.read(CHUNK):
                digest.update(data)
                advance(len(data))
        if digest.hexdigest() == release.sha256:
            return
    raise UserError(f"{path} is not the published {release.file} (its size or sha256 differs): {advice}")


def _require_space(release: Release, folder: Path, *, already: int) -> None:
    """Raises UserError unless the rest of the file and a copy of it fit on the disk."""
    needed = release.size - already + release.size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"the disk is too full: fetching {release.file} and using it needs {needed / 1e9:.1f} GB in {folder}, "
            f"{free / 1e9:.1f} GB are free"
        )


@contextlib.contextmanager
def _locked(file: BinaryIO, path: Path) -> Iterator[None]:
    """Holds `file` for this process alone; UserError if another one holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another download is writing {path}: wait until it has ended") from error
    yield


def _reason(error: Exception) -> str:
    """Returns in words what went wrong with a connection."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection ({error.reason})"
    if isinstance(error, TimeoutError):
        return "the server stopped sending"
    return f"the connection broke ({' '.join(str(error).split()) or type(error).__name__})"


def _by_hand(release: Release, reason: str) -> str:
    """Returns the sentence that ends a download, with the way around it."""
    return (
        f"{release.file} could not be fetched: {reason}; or fetch it by hand from {release.page} "
        f"and run `{release.command}`"
    )
