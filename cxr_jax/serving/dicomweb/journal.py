"""What is known of studies between two starts, so that those that are done are not asked for again.

The archive itself holds the truth: everything that is written into it has an identifier that follows from the
radiograph and the network. Without its journal a command asks more, and stores nothing twice.

Studies and images are named by hashes of their identifiers; nothing of a patient is in the file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_text, writing
from cxr_jax.runs.locks import held
from cxr_jax.serving.dicomweb.network import hashed

KEPT_SECONDS = 400 * 86_400.0
"""Age from which an entry is left out when the file is opened anew."""

SCHEMA_VERSION = 1

_BEGINNING = '{"schema_version": '


@dataclass(frozen=True)
class StudyEntry:
    """What became of a study when it was last looked at."""

    instances: int | None  # objects that the archive counted in it then
    failures: int = 0  # tries in a row that did not finish it
    again: float = 0.0  # seconds since 1970 from which it is tried again after a failure
    sentence: str = ""  # of the last failure


@dataclass(frozen=True)
class ImageEntry:
    """What became of a radiograph."""

    state: Literal["passed over", "sent", "stored"]  # sent: the archive took its results, and did not list them
    reason: str = ""  # why it was passed over


SENT, STORED = ImageEntry("sent"), ImageEntry("stored")


class Journal:
    """Entries of one network, each written to the disk before anything else is done."""

    def __init__(self, path: Path, network: str, lines: list[dict[str, Any]]) -> None:
        self._path, self._network = path, network
        self._studies: dict[str, StudyEntry] = {}
        self._images: dict[str, ImageEntry] = {}
        for line in lines:
            self._take(line)

    @classmethod
    @contextmanager
    def open(cls, path: Path, network: str) -> Iterator[Journal]:
        """Opens the journal at `path`, which is made if it does not exist, for the network with the hash `network`.

        It is held while the block runs. A line that a crash cut off is left out, and so are very old ones.

        Raises:
            UserError: it cannot be written, holds something else, or another process has it open.
        """
        if path.is_dir():
            raise UserError(f"--journal {path} is a folder: name a file in it")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        lock = path.with_name(f"{path.name}.lock")
        with writing(lock):
            lock.touch()
        with held(lock, f"another process works with the journal {path}: give each its own by --journal"):
            lines = _read(path)
            write_text(path, "".join(map(_text, lines)))
            yield cls(path, network, lines)

    def study(self, uid: str) -> StudyEntry | None:
        """Returns what became of a study; None if it was never looked at."""
        return self._studies.get(hashed(uid))

    def write_study(self, uid: str, entry: StudyEntry) -> None:
        """Remembers what became of a study; UserError if it cannot be written."""
        if self.study(uid) != entry:
            self._append({"study": hashed(uid), **asdict(entry)})

    def image(self, uid: str) -> ImageEntry | None:
        """Returns what became of a radiograph; None if nothing is known of it."""
        return self._images.get(hashed(uid))

    def write_image(self, uid: str, entry: ImageEntry) -> None:
        """Remembers what became of a radiograph; UserError as above."""
        if self.image(uid) != entry:
            self._append({"image": hashed(uid), **asdict(entry)})

    def _append(self, value: dict[str, Any]) -> None:
        line = {"schema_version": SCHEMA_VERSION, "at": round(time.time()), "network": self._network, **value}
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_text(line))
            file.flush()
            os.fsync(file.fileno())
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if line.get("network") != self._network:
            return
        kind, entry = _entry(line)
        (self._images if kind == "image" else self._studies)[line[kind]] = entry


def _entry(line: dict[str, Any]) -> tuple[str, Any]:
    """Returns of what a line is, `study` or `image`, and its entry; KeyError or TypeError if it is no such line."""
    kind, record = ("image", ImageEntry) if "image" in line else ("study", StudyEntry)
    return kind, record(**{field.name: line[field.name] for field in fields(record)})


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"


def _read(path: Path) -> list[dict[str, Any]]:
    """Returns the newest line of every study and image, old ones left out; UserError if it is no journal."""
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a journal: choose another --journal") from error
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    oldest = time.time() - KEPT_SECONDS
    *whole, rest = texts
    try:
        # what a crash cut off begins as every line does; anything else is a person's
        if rest and not (rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest)):
            raise ValueError("no journal")
        for line in map(json.loads, whole):
            kind, _ = _entry(line)
            key = (line["network"], kind, line[kind])
            if line["at"] >= oldest:
                latest[key] = line
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no journal of this command: choose another --journal") from None
    return list(latest.values())
