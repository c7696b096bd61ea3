"""Where a file lies in a tree of class folders: [split/]CLASS/name or CLASS/split/name, anywhere below the top."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from cxr_jax.data.sources.passed_over import as_text
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, SPLIT_NAMES

_SPLIT_FOLDERS = {name: name for name in SPLIT_NAMES} | {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "testing": "test",
}

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Spot:
    """A file in a class folder."""

    path: str
    root: str  # path of the folder that holds the split or class folders; "." is the top
    split: str | None
    label: int
    class_name: str
    inner: str  # path below the class folder, and below the split folder in it
    class_folder: str  # path of the class folder
    names: frozenset[tuple[str, str]]  # (name of the split or class, name of its folder)

    @property
    def file(self) -> str:
        """The name of the file in tables."""
        below = as_text(f"{self.class_name}/{self.inner}")
        return f"{self.split}/{below}" if self.split else below


def spots_of(paths: Iterable[str], *, source: str, classes: tuple[str, ...] = CLASS_NAMES) -> dict[str, Spot | None]:
    """Returns the place of every path, or None for a path in no class folder. Errors call the tree `source`.

    `classes` are the names of the folders, in capitals or small letters. A folder that has the name of a class, but
    folders of two classes somewhere below it, is none: a data set was put into a folder called pneumonia. Where class
    folders of one class lie in each other, the outer one counts.

    Raises:
        UserError: a class folder lies in one of another class, so that it is not clear what its files show.
    """
    label_of = {name.lower(): index for index, name in enumerate(classes)}
    split_up = {path: PurePosixPath(path).parts for path in paths}
    named = {path: _class_names(parts, label_of) for path, parts in split_up.items()}
    labels_below: dict[Parts, set[int]] = defaultdict(set)
    for path, found in named.items():
        for place, (index, _) in enumerate(found):
            labels_below[split_up[path][: index + 1]].update(label for _, label in found[place + 1 :])
    return {path: _spot(path, split_up[path], found, labels_below, source, classes) for path, found in named.items()}


def _class_names(parts: Parts, label_of: Mapping[str, int]) -> list[tuple[int, int]]:
    """Returns (index, label) of every folder in `parts` that has the name of a class."""
    labels = (label_of.get(part.lower()) for part in parts[:-1])
    return [(index, label) for index, label in enumerate(labels) if label is not None]


def is_split(folder: str) -> bool:
    """Returns True for the name of a folder that holds a split, such as `train` or `valid`."""
    return folder.lower() in _SPLIT_FOLDERS


def _spot(
    path: str,
    parts: Parts,
    named: list[tuple[int, int]],
    labels_below: dict[Parts, set[int]],
    source: str,
    classes: tuple[str, ...],
) -> Spot | None:
    """Returns where the file with these parts lies; `named` are the folders above it that have names of classes."""
    counting = [(i, label) for i, label in named if len(labels_below[parts[: i + 1]]) < 2]
    if not counting:
        return None
    index, label = counting[0]
    for inner_index, inner_label in counting:
        if inner_label != label:
            inner, outer = (str(PurePosixPath(*parts[: i + 1])) for i in (inner_index, index))
            raise UserError(
                f"{source}: the folder {inner} lies in {outer}, so that it is not clear what its "
                "files show: move it out of there"
            )
    folder, root, inner = parts[index], parts[:index], parts[index + 1 :]
    split_folder = None
    if root and is_split(root[-1]):
        split_folder, root = root[-1], root[:-1]
    elif len(inner) > 1 and is_split(inner[0]):
        split_folder, inner = inner[0], inner[1:]
    split = _SPLIT_FOLDERS[split_folder.lower()] if split_folder else None
    names = {(classes[label], folder)} | ({(split, split_folder)} if split and split_folder else set())
    class_folder = str(PurePosixPath(*parts[: index + 1]))
    top = str(PurePosixPath(*root))
    return Spot(path, top, split, label, classes[label], "/".join(inner), class_folder, frozenset(names))
