"""Finding the data set in a tree of files: [split/]CLASS/name, anywhere below the top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from cxr_jax.data.decode import IMAGE_SUFFIXES
from cxr_jax.data.sources.source import Entry, LeftOut, by_order
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, SPLIT_NAMES

PHANTOM_MARK = "PHANTOM.txt"
"""A file of this name beside the split or class folders says that the images are drawn, not taken from people."""

OFFICIAL_FOLDER = "chest_xray"
"""Name of the top folder in both releases."""

MAX_DEPTH = 6
"""How many folders deep a data set is looked for."""

_SPLIT_FOLDERS = {name: name for name in SPLIT_NAMES} | {"training": "train", "validation": "val", "testing": "test"}
_CLASS_FOLDERS = {name.lower(): index for index, name in enumerate(CLASS_NAMES)}


@dataclass(frozen=True)
class Layout:
    """One data set found in a tree."""

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    phantom: bool


@dataclass(frozen=True)
class _Spot:
    """A file in a class folder."""

    path: str
    root: str  # path of the folder that holds the split or class folders; "." is the top
    split: str | None
    label: int
    inner: str  # path below the class folder


def is_hidden(name: str) -> bool:
    """Return True for a file or folder that operating systems leave behind: dot files and __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def find_layout(sizes: Mapping[str, int], *, source: str) -> Layout:
    """Find the data set in a tree.

    Args:
        sizes: bytes of every file by its path relative to the top, with `/`.
        source: what to call the tree in an error.

    Raises:
        UserError: no class folders, one class only, no training images, or several data sets that differ.
    """
    spots = [spot for path in sizes if (spot := _spot(path)) is not None]
    images = [spot for spot in spots if spot.path.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise UserError(
            f"{source} holds no radiographs: expected JPEG, PNG or DICOM files in folders named "
            f"{' and '.join(CLASS_NAMES)}, with or without {', '.join(SPLIT_NAMES)} above them"
        )
    root, with_splits, notes = _choose(images, sizes, source)
    chosen = [spot for spot in spots if spot.root == root and (spot.split is not None) == with_splits]
    entries = by_order(
        Entry(_file(spot), spot.split, spot.label, spot.path)
        for spot in chosen
        if spot.path.lower().endswith(IMAGE_SUFFIXES)
    )
    for before, entry in pairwise(entries):
        if before.file == entry.file:
            raise UserError(f"{source} holds {entry.file} twice ({before.place} and {entry.place}): keep one of them")
    left_out = tuple(
        LeftOut(_file(spot), "no JPEG, PNG or DICOM file by its name")
        for spot in sorted(chosen, key=lambda spot: spot.path)
        if not spot.path.lower().endswith(IMAGE_SUFFIXES)
    )
    require_two_classes(entries, source=source if root == "." else f"{source}, {root}")
    marks = {str(PurePosixPath(folder) / PHANTOM_MARK) for folder in (root, str(PurePosixPath(root).parent))}
    return Layout(entries, left_out, notes, phantom=any(mark in sizes for mark in marks))


def require_two_classes(entries: Iterable[Entry], *, source: str) -> None:
    """Raise UserError unless there are training images of both classes."""
    entries = tuple(entries)
    if entries and entries[0].split is not None and not any(entry.split == "train" for entry in entries):
        raise UserError(f"{source} has no training images: its folder train is missing or empty")
    trained = [entry.label for entry in entries if entry.split in (None, "train")]
    for label, name in enumerate(CLASS_NAMES):
        if label not in trained:
            raise UserError(f"{source} holds no training images of class {name}: two classes are needed")


def _spot(path: str) -> _Spot | None:
    """Return where `path` lies if it is in a class folder, else None."""
    parts = PurePosixPath(path).parts
    if any(is_hidden(part) for part in parts):
        return None
    for index, part in enumerate(parts[:-1]):
        label = _CLASS_FOLDERS.get(part.lower())
        if label is not None:
            split = _SPLIT_FOLDERS.get(parts[index - 1].lower()) if index else None
            root = parts[: index - 1] if split else parts[:index]
            return _Spot(path, str(PurePosixPath(*root)), split, label, "/".join(parts[index + 1 :]))
    return None


def _file(spot: _Spot) -> str:
    """Return the name of the file in tables, which are UTF-8, whatever bytes the file system has."""
    below = f"{CLASS_NAMES[spot.label]}/{spot.inner}".encode(errors="backslashreplace").decode()
    return f"{spot.split}/{below}" if spot.split else below


def _choose(images: list[_Spot], sizes: Mapping[str, int], source: str) -> tuple[str, bool, tuple[str, ...]]:
    """Return (root, whether it has splits, notes) of the data set that is meant."""
    sets: dict[tuple[str, bool], dict[str, int]] = {}
    for spot in images:
        sets.setdefault((spot.root, spot.split is not None), {})[_file(spot)] = sizes[spot.path]
    ordered = sorted(sets, key=lambda key: (len(PurePosixPath(key[0]).parts), key))
    first = next((key for key in ordered if PurePosixPath(key[0]).name == OFFICIAL_FOLDER and key[1]), ordered[0])
    others = [key for key in ordered if key != first]
    notes = []
    for other in others:
        if sets[other].items() <= sets[first].items():
            notes.append(f"A second copy in {other[0]} ({len(sets[other]):,} files) was not read.")
        elif PurePosixPath(first[0]).name == OFFICIAL_FOLDER and other[0] != first[0]:
            notes.append(f"{other[0]} ({len(sets[other]):,} files) beside {first[0]} was not read.")
        else:
            raise UserError(
                f"{source} holds several data sets ({first[0]} and {other[0]} among them): name the folder of one"
                if other[0] != first[0]
                else f"{source} mixes class folders inside and outside of train, val and test: keep one kind"
            )
    return *first, tuple(notes)
