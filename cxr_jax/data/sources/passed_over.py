"""What of a source is not taken, counted by reason and folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

NAMED = 20
"""Files of a group that are named; all are counted."""

MOST_FOLDERS = 10
"""Folders that are told apart for one reason; more are counted together in the folder above them."""

TOP = "."
"""The folder of what lies at the top of a source."""


@dataclass(frozen=True)
class Stray:
    """A file that is no part of the data set, or a folder of such files that were not listed."""

    file: str  # path from the top of the source
    folder: str  # the folder by which a reader finds it, which may lie above that of the file
    reason: str
    count: int = 1  # files that it stands for


@dataclass(frozen=True)
class PassedOver:
    """Files of a source that are no part of the data set, in one folder and for one reason."""

    folder: str  # path from the top of the source, as text
    reason: str
    count: int
    files: tuple[str, ...]  # the first NAMED of them, as text


def grouped(strays: Iterable[Stray]) -> tuple[PassedOver, ...]:
    """Returns `strays` counted by reason and folder, at most MOST_FOLDERS folders for each reason."""
    by_reason: dict[str, list[Stray]] = defaultdict(list)
    for stray in sorted(strays, key=lambda stray: stray.file):
        by_reason[stray.reason].append(stray)
    groups = []
    for reason, members in by_reason.items():
        for folder, files in _by_folder(members).items():
            named = tuple(as_text(stray.file) for stray in files[:NAMED])
            groups.append(PassedOver(as_text(folder), reason, sum(stray.count for stray in files), named))
    return tuple(sorted(groups, key=lambda group: (group.folder, group.reason)))


def as_text(path: str) -> str:
    """Returns a path as it stands in tables, which are UTF-8, whatever bytes the file system has."""
    return path.encode(errors="backslashreplace").decode()


def _by_folder(strays: list[Stray]) -> dict[str, list[Stray]]:
    """Returns `strays` by folder, the folders cut short until they are few."""
    parts = [PurePosixPath(stray.folder).parts for stray in strays]
    depth = max(map(len, parts))
    while depth and len({part[:depth] for part in parts}) > MOST_FOLDERS:
        depth -= 1
    folders: dict[str, list[Stray]] = defaultdict(list)
    for stray, part in zip(strays, parts, strict=True):
        folders[str(PurePosixPath(*part[:depth]))].append(stray)
    return folders
