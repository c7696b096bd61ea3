"""Finding the data set in a tree of files, and telling why every other file is no part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from cxr_jax.data.findings import present_in, unknown_in
from cxr_jax.data.sources.class_folders import Spot, is_split, spots_of
from cxr_jax.data.sources.leftovers import MASKS, masked_image, names_masks
from cxr_jax.data.sources.passed_over import TOP, PassedOver, Stray, grouped
from cxr_jax.data.sources.recognition import ARCHIVE, passed_by_name, why_no_image
from cxr_jax.data.sources.source import Entry, by_order
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, SPLIT_NAMES, Kind

PHANTOM_MARK = "PHANTOM.txt"
"""A file of this name beside the split or class folders says that the images are drawn, not taken from people."""

OFFICIAL_FOLDER = "chest_xray"
"""Name of the top folder in both releases."""

NO_CLASS = "no class folder"
NO_SPLIT = f"no split folder ({', '.join(SPLIT_NAMES)}), though the data set has them"
COPY = "a second copy of what was read"

_SUGGESTED = 6
"""Folders that a sentence about a missing class names."""

Key = tuple[str, bool]
"""Root of a data set and whether it has splits."""


@dataclass(frozen=True)
class Layout:
    """One data set found in a tree."""

    entries: tuple[Entry, ...]
    passed_over: tuple[PassedOver, ...]
    notes: tuple[str, ...]
    phantom: bool


def find_layout(
    sizes: Mapping[str, int],
    *,
    source: str,
    head: Callable[[str], bytes],
    strays: Sequence[Stray] = (),
    classes: tuple[str, ...] = CLASS_NAMES,
) -> Layout:
    """Finds the data set in a tree.

    Args:
        sizes: bytes of every file by its path relative to the top, with `/`.
        source: what to call the tree in an error.
        head: returns the first encoded.HEAD_BYTES bytes of a file, or raises UserError; asked for files in class
            folders whose suffix tells no kind of image.
        strays: what has been passed over before, such as links to folders that are read elsewhere.
        classes: names of the class folders, in the order of the labels.

    Raises:
        UserError: no class folders, one class only, no training images, or several data sets that differ.
    """
    passed, outside, images = list(strays), [], []
    named = {path: passed_by_name(path) for path in sorted(sizes)}
    passed += [stray for stray in named.values() if stray is not None]
    unnamed = (path for path, stray in named.items() if stray is None)
    for path, spot in spots_of(unnamed, source=source, classes=classes).items():
        if spot is None:
            outside.append(path)
        elif reason := why_no_image(path, head):
            passed.append(Stray(path, spot.class_folder, reason))
        else:
            images.append(spot)
    images, masks = _without_masks(images)
    passed += masks
    if not images:
        raise UserError(
            f"{source} holds no radiographs: expected JPEG, PNG or DICOM files in folders named "
            f"{' and '.join(classes)}, with or without {', '.join(SPLIT_NAMES)} above them"
            f"{_other_classes(outside) if classes == CLASS_NAMES else ''}"
            f"{_found_instead((*passed, *_outside(outside, TOP)))}"
        )
    (root, with_splits), beside = _choose(images, sizes, source, classes)
    chosen = [spot for spot in images if (spot.root, spot.split is not None) == (root, with_splits)]
    entries = by_order(Entry(spot.file, spot.split, spot.label, spot.path) for spot in chosen)
    for before, entry in pairwise(entries):
        if before.file == entry.file:
            raise UserError(f"{source} holds {entry.file} twice ({before.place} and {entry.place}): keep one of them")
    marks = {str(PurePosixPath(folder) / PHANTOM_MARK) for folder in (root, PurePosixPath(root).parent)}
    passed_over = grouped((*passed, *beside, *_outside((path for path in outside if path not in marks), root)))
    where = source if root == TOP else f"{source}, {root}"
    require_every_class(entries, source=where, passed_over=passed_over, classes=classes)
    return Layout(entries, passed_over, _joined_folders(chosen), phantom=not marks.isdisjoint(sizes))


def require_every_class(
    entries: Iterable[Entry],
    *,
    source: str,
    passed_over: Sequence[PassedOver] = (),
    classes: tuple[str, ...] = CLASS_NAMES,
) -> None:
    """Raises UserError unless there are training images of every class; it names folders that may be meant."""
    entries = tuple(entries)
    if entries and entries[0].split is not None and not any(entry.split == "train" for entry in entries):
        raise UserError(f"{source} has no training images: its folder train is missing or empty")
    trained = [entry.label for entry in entries if entry.split in (None, "train")]
    needed = "two classes are needed" if len(classes) == 2 else f"each of the {len(classes)} classes needs some"
    for label, name in enumerate(classes):
        if label not in trained:
            raise UserError(
                f"{source} holds no training images of class {name}: {needed}{_meant_instead(name, passed_over)}"
            )


def require_training_images(entries: Iterable[Entry], source: str, classes: tuple[str, ...], kind: Kind) -> None:
    """Raises UserError unless there are training images of every class; of a finding some with it and some without."""
    if kind == EXCLUSIVE:
        return require_every_class(entries, source=source, classes=classes)
    trained = [entry.findings for entry in entries if entry.split in (None, "train")]
    if not trained:
        raise UserError(f"{source} has no training images: none is in the training split")
    shown = Counter(name for cell in trained for name in present_in(cell))
    unknown = Counter(name for cell in trained for name in unknown_in(cell))
    for name in classes:
        lacking = "with" if not shown[name] else "without"
        if shown[name] in (0, len(trained) - unknown[name]):
            raise UserError(f"{source} holds no training images {lacking} {name}: a network needs both to learn it")
    return None


def _outside(paths: Iterable[str], root: str) -> list[Stray]:
    """Returns files that lie in no class folder as strays, told by the folder that stands in the place of a class."""
    return [
        Stray(path, str(_beside_classes(PurePosixPath(path).parent, PurePosixPath(root))), NO_CLASS) for path in paths
    ]


def _beside_classes(folder: PurePosixPath, root: PurePosixPath) -> PurePosixPath:
    """Returns `folder` cut short where class folders stand: below `root`, and below a split folder in it."""
    if not folder.is_relative_to(root):
        return PurePosixPath(*folder.parts[:1])
    below = folder.relative_to(root).parts
    return root.joinpath(*below[: 2 if below and is_split(below[0]) else 1])


def _without_masks(images: list[Spot]) -> tuple[list[Spot], list[Stray]]:
    """Returns the images without the masks that lie beside them, and the masks."""
    stems = {(spot.class_folder, PurePosixPath(spot.path).stem) for spot in images}
    kept, masks = [], []
    for spot in images:
        folders = PurePosixPath(spot.path).relative_to(spot.class_folder).parts[:-1]
        depth = next((index for index, folder in enumerate(folders) if names_masks(folder)), None)
        if depth is not None:
            masks.append(Stray(spot.path, str(PurePosixPath(spot.class_folder, *folders[: depth + 1])), MASKS))
        elif (spot.class_folder, masked_image(PurePosixPath(spot.path).stem)) in stems:
            masks.append(Stray(spot.path, spot.class_folder, MASKS))
        else:
            kept.append(spot)
    return kept, masks


def _choose(
    images: list[Spot], sizes: Mapping[str, int], source: str, classes: tuple[str, ...]
) -> tuple[Key, list[Stray]]:
    """Returns which data set is meant, and the images of the others with the reason why they are not."""
    sets: dict[Key, list[Spot]] = {}
    for spot in images:
        sets.setdefault((spot.root, spot.split is not None), []).append(spot)
    contents = {key: {spot.file: sizes[spot.path] for spot in spots} for key, spots in sets.items()}
    ordered = sorted(sets, key=lambda key: (_holds_masks(key), len(PurePosixPath(key[0]).parts), key))
    first = next((key for key in ordered if PurePosixPath(key[0]).name == OFFICIAL_FOLDER and key[1]), ordered[0])
    beside = []
    for other in ordered:
        if other == first:
            continue
        official = PurePosixPath(first[0]).name == OFFICIAL_FOLDER and other[0] != first[0]
        if contents[other].items() <= contents[first].items():
            reason = COPY
        elif _holds_masks(other) and not _holds_masks(first):
            reason = MASKS
        elif official and PurePosixPath(other[0]).is_relative_to(first[0]):
            reason = NO_SPLIT
        elif official:
            reason = f"beside {first[0]}, which was read"
        else:
            raise UserError(_several(source, first, other, classes))
        beside += [Stray(spot.path, other[0], reason) for spot in sets[other]]
    return first, beside


def _holds_masks(key: Key) -> bool:
    return any(map(names_masks, PurePosixPath(key[0]).parts))


def _several(source: str, first: Key, other: Key, classes: tuple[str, ...]) -> str:
    """Returns the sentence about two data sets of which neither is preferred."""
    splits = ", ".join(SPLIT_NAMES)
    if other[0] == first[0]:
        return f"{source} mixes class folders inside and outside of train, val and test: keep one kind"
    if first[1] and not other[1] and PurePosixPath(other[0]).is_relative_to(first[0]):
        return (
            f"{source} has class folders in {other[0]}, which is no split: call it one of {splits}, or take it out of "
            f"{source}"
        )
    return (
        f"{source} holds several data sets ({first[0]} and {other[0]} among them): name the folder of one; folders "
        f"called {splits} belong directly above {' and '.join(classes)}"
    )


def _joined_folders(chosen: list[Spot]) -> tuple[str, ...]:
    """Returns a sentence for every split and class that was put together from folders of different names."""
    folders: dict[str, set[str]] = {}
    for meaning, folder in set().union(*(spot.names for spot in chosen)):
        folders.setdefault(meaning, set()).add(folder)
    return tuple(
        f"The folders {' and '.join(sorted(names))} were read as one, {meaning}."
        for meaning, names in sorted(folders.items())
        if len(names) > 1
    )


def _found_instead(passed: Sequence[Stray]) -> str:
    """Returns the end of a sentence: where there are files that may be meant, if any."""
    groups = [group for group in grouped(passed) if group.reason in (NO_CLASS, ARCHIVE, MASKS)]
    return f"; found {_listed(groups)}" if groups else ""


def _other_classes(outside: Sequence[str]) -> str:
    """Returns the end of a sentence: how folders of other classes are prepared, if there are two that may be some."""
    folders = {PurePosixPath(path).parent.name for path in outside} - {""}
    return "; class folders of other names are named by --classes" if len(folders) >= 2 else ""


def _meant_instead(name: str, passed_over: Sequence[PassedOver]) -> str:
    """Returns the end of a sentence: what to do with folders that may hold the missing class `name`, if any."""
    groups = [group for group in passed_over if group.reason == NO_CLASS and group.folder != TOP]
    alike = [group for group in groups if name.lower() in group.folder.lower()]
    if not groups:
        return ""
    which = "these folders" if alike else f"those that show {name}"
    return f"; found {_listed(alike or groups)}: move {which} into one folder called {name}"


def _listed(groups: Sequence[PassedOver]) -> str:
    """Returns the first folders with the counts of their files; a single file by its name."""
    largest = sorted(groups, key=lambda group: -group.count)
    named = [
        group.files[0]
        if group.count == 1
        else f"{'the top folder' if group.folder == TOP else group.folder} ({group.count:,} files)"
        for group in largest[:_SUGGESTED]
    ]
    more = len(largest) - _SUGGESTED
    return ", ".join(named) + (f" and {more} more folders" if more > 0 else "")
