"""Lung masks of a folder, matched with prepared radiographs by file, checked, and stored beside them."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from cxr_jax.data.decode import decode_grey, without_suffix
from cxr_jax.data.examples import Example
from cxr_jax.data.findings import present_in
from cxr_jax.data.mask_record import ENTRY, LISTED, MaskRecord, mask_name
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.prepared import CARD, PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.sources.leftovers import leftover, masked_image
from cxr_jax.errors import UserError
from cxr_jax.runs import files
from cxr_jax.runs.records import to_json

SUFFIXES = (".png", ".jpg", ".jpeg")

WHITE = 128
"""Grey level from which on a pixel of a mask is lung."""


def add_masks(prepared: PreparedData, folder: Path, *, replace_old: bool = False, track: Track = silently) -> bool:
    """Stores the masks below `folder` beside the prepared radiographs, and tells of them in the data card.

    The mask of `train/NORMAL/a.jpeg` is `train/NORMAL/a.png` below `folder`, or `a_mask.png`: white lungs on black, of
    the size of its radiograph, or a square that it was squashed to.

    Args:
        prepared: the radiographs.
        folder: where the masks are.
        replace_old: whether other masks that are there already are replaced.
        track: shows progress.

    Returns:
        False if these very masks were there already.

    Raises:
        UserError: there is no such folder; no mask in it has a radiograph, two have the same, or two radiographs have
            one; a mask has another size, marks nothing or everything, or cannot be read; others are there, and are not
            to be replaced; or they cannot be stored.
    """
    found, unmatched = _matched(folder, prepared.examples)
    with track("Reading the masks", len(found)) as advance:
        encoded = []
        for data in map_in_order(lambda pair: _checked(*pair), found):
            encoded.append(data)
            advance(1)
    record = recorded(str(folder.resolve()), prepared, [example for example, _ in found], encoded, unmatched)
    old = prepared.masks
    if old is not None and replace(record, source=old.source) == old and (prepared.path / old.file).is_file():
        return False
    if old is not None and old.fingerprint != record.fingerprint and not replace_old:
        raise UserError(
            f"{prepared.path} has other masks already, from {old.source}: put these in their place with --replace"
        )
    rows = {example.file: row for row, example in enumerate(prepared.examples)}
    store_masks(prepared.path / record.file, [rows[example.file] for example, _ in found], encoded)
    files.write_json(prepared.path / CARD, {**prepared.card, ENTRY: to_json(record)})
    if old is not None and old.file != record.file:
        files.remove(prepared.path / old.file)
    return True


def _matched(folder: Path, examples: Sequence[Example]) -> tuple[list[tuple[Example, Path]], list[str]]:
    """Returns the radiographs that have a mask, in their order, with its path; and masks that have no radiograph."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of masks")
    by_name: dict[str, list[Path]] = {}
    wanted = {without_suffix(example.file) for example in examples}
    unmatched = []
    for path in _images_below(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        bare = masked_image(path.stem)
        other = str(PurePosixPath(name).with_name(bare)) if bare else name
        if name in wanted or other in wanted:
            by_name.setdefault(name if name in wanted else other, []).append(path)
        else:
            unmatched.append(path.relative_to(folder).as_posix())
    for paths in by_name.values():
        if len(paths) > 1:
            raise UserError(f"{paths[0]} and {paths[1]} are masks of the same radiograph: keep one")
    if not by_name:
        file = examples[0].file
        raise UserError(
            f"no mask in {folder} belongs to a radiograph: that of {file} is {without_suffix(file)}.png there"
        )
    having: dict[Path, Example] = {}
    for example in examples:
        for path in by_name.get(without_suffix(example.file), ()):
            other = having.setdefault(path, example)
            if other is not example:
                raise UserError(
                    f"{path} would be the mask of both {other.file} and {example.file}: rename one of these "
                    "radiographs, and prepare them anew"
                )
    return [(example, path) for path, example in having.items()], unmatched


def _images_below(folder: Path) -> list[Path]:
    """Returns the image files below a folder, in the order of their names."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not leftover(name)]
        found += [
            Path(place, name) for name in names if name.lower().endswith(SUFFIXES) and not leftover(name, is_file=True)
        ]
    return sorted(found)


def _checked(example: Example, path: Path) -> bytes:
    """Returns the mask of a radiograph as a PNG of one bit a pixel; UserError if it cannot be one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    lungs = decode_grey(data, name=str(path)) >= WHITE
    height, width = lungs.shape
    if lungs.shape != (example.height, example.width) and height != width:
        raise UserError(
            f"{path} is {width} x {height} pixels, and its radiograph {example.width} x {example.height}: a mask has "
            "that size, or is a square that the radiograph was squashed to"
        )
    if not lungs.any() or lungs.all():
        told = "everything" if lungs.any() else "nothing"
        raise UserError(f"{path} marks {told}: in a mask lungs are white (255) and the rest is black")
    return cv2.imencode(".png", lungs.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()


def recorded(
    source: str, prepared: PreparedData, having: Sequence[Example], encoded: Sequence[bytes], unmatched: Sequence[str]
) -> MaskRecord:
    """Returns what the card of `prepared` says of masks from the folder `source`: those of the images `having`."""
    digest = hashlib.sha256()
    for example, data in sorted(zip(having, encoded, strict=True), key=lambda pair: pair[0].file):
        digest.update(f"{example.file}\0{hashlib.sha256(data).hexdigest()}\n".encode(errors="surrogateescape"))
    fingerprint = digest.hexdigest()
    counts = Counter((example.split, name) for example in having for name in present_in(example.label))
    there = {example.file for example in having}
    return MaskRecord(
        source=source,
        file=f"masks-{fingerprint[:16]}.zip",
        fingerprint=fingerprint,
        images=len(having),
        counts={
            split: {name: counts[split, name] for name in prepared.classes}
            for split in dict.fromkeys(example.split for example in prepared.examples)
        },
        absent=tuple(example.file for example in prepared.examples if example.file not in there),
        unmatched=len(unmatched),
        unmatched_files=tuple(unmatched[:LISTED]),
    )


def store_masks(path: Path, rows: Sequence[int], encoded: Sequence[bytes]) -> None:
    """Writes the masks of these rows of the table to one zip file; UserError if that cannot be done."""
    with files.atomic_path(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        for row, data in zip(rows, encoded, strict=True):
            # a fixed date, so that the same masks are the same file
            archive.writestr(zipfile.ZipInfo(mask_name(row)), data)
