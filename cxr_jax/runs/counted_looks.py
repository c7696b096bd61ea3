"""How often all runs on this machine have looked at test images, which are told by their content.

A folder beside the prepared data sets has two files for every set of test images: `<name>.jsonl` with a line for each
look, and `<name>.images` with the sha256 of each image, sorted, one a line. The name is the sha256 of the latter. So
the same images count together however they were prepared: with other classes, under other file names, some left out.

Earlier versions wrote the first file alone, under the fingerprint of the whole data. Whoever knows data of that
fingerprint can `identify` its test images. Until then it is unknown which images these looks were at.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_text, writing
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder
from cxr_jax.runs.ledger import append_line

LOOKS = ".looks"
"""Folder of the counts of looks, beside the prepared data sets; no data set can be called so."""


@dataclass(frozen=True)
class CountedLooks:
    """How many looks all runs on this machine have taken."""

    these: int  # at these test images, or at some of them
    unknown: int  # counted by an earlier version, at images that nothing here tells


def images_digest(images: Iterable[str]) -> str:
    """Returns the sha256 of a set of images, hexadecimal; `images` are the sha256 of each, in any order."""
    return hashlib.sha256(_listed(images).encode()).hexdigest()


def count_look(root: Path, images: Collection[str], run: RunFolder) -> CountedLooks | None:
    """Counts one look at test images, and returns how many all runs together have taken now.

    Args:
        root: folder of all prepared data sets of this machine.
        images: sha256 of every test image.
        run: whose network looks.

    Returns:
        None if nothing can be kept there: a folder that others share may not be writable.
    """
    name = images_digest(images)
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        identify(root, name, images)
        entry = {"schema_version": SCHEMA_VERSION, "date": date, "run": str(run.path.resolve())}
        append_line(_folder(root) / f"{name}.jsonl", entry)
        return _counted(root, frozenset(images))
    except (UserError, OSError):
        return None


def unidentified(root: Path) -> tuple[str, ...]:
    """Returns the names under which looks at images that are not known were counted: fingerprints of whole data."""
    counts = sorted(_folder(root).glob("*.jsonl"))
    return tuple(path.stem for path in counts if not path.with_suffix(".images").is_file())


def identify(root: Path, name: str, images: Iterable[str]) -> None:
    """Stores which images the looks counted under `name` are at; UserError if nothing can be written there."""
    path = _folder(root) / f"{name}.images"
    if not path.is_file():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, _listed(images))


def _counted(root: Path, images: frozenset[str]) -> CountedLooks:
    """Returns how many looks were counted at sets that share an image with `images`, and at unknown ones."""
    these = unknown = 0
    for path in _folder(root).glob("*.jsonl"):
        looks, known = path.read_bytes().count(b"\n"), path.with_suffix(".images")
        if not known.is_file():
            unknown += looks
        elif not images.isdisjoint(known.read_text(encoding="ascii").split()):
            these += looks
    return CountedLooks(these, unknown)


def _folder(root: Path) -> Path:
    return root / LOOKS


def _listed(images: Iterable[str]) -> str:
    return "".join(f"{image}\n" for image in sorted(set(images)))
