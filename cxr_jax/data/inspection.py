"""Reading every image of a source once: its content, size and whether it can be decoded at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import cv2
import numpy as np

from cxr_jax.data.decode import DARK, Depth, as_stored
from cxr_jax.data.examples import Example
from cxr_jax.data.file_names import parse_file_name
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.progress import Track
from cxr_jax.data.sources import Entry, LeftOut, Reader
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, FINDINGS, NORMAL, Kind

UNCUT = ""
"""Split of an example whose source has no splits, until one is cut."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a source."""

    entries: tuple[Entry, ...]  # of the examples, in the same order
    examples: tuple[Example, ...]
    left_out: tuple[LeftOut, ...]
    named: int  # examples whose group is told, by the source or by the file name
    contradicting: tuple[str, ...]  # files whose name tells another class than their folder; the folder counts
    notes: tuple[str, ...] = ()  # sentences for the data card
    given: int = 0  # examples whose group is told by the source


@dataclass(frozen=True)
class _Image:
    """What was found in one image."""

    sha256: str
    height: int
    width: int
    depth: Depth | None
    two_levels: bool  # it holds two grey levels only


def inspect(
    reader: Reader,
    entries: tuple[Entry, ...],
    track: Track,
    classes: tuple[str, ...] = CLASS_NAMES,
    kind: Kind = EXCLUSIVE,
) -> Inspection:
    """Reads and decodes every entry in threads; what cannot be decoded is left out with its reason.

    File names tell subtypes and groups of NORMAL and PNEUMONIA alone: of other `classes` they are not asked.
    """
    usual = classes == CLASS_NAMES
    kept, examples, left_out, contradicting, depths, like_masks, named = [], [], [], [], [], [], 0
    with track("Reading", len(entries)) as advance:
        outcomes = []
        for outcome in map_in_order(_examined, _read_all(reader, entries)):
            outcomes.append(outcome)
            advance(1)
    for entry, outcome in zip(entries, outcomes, strict=True):
        if isinstance(outcome, LeftOut):
            left_out.append(outcome)
            continue
        said = parse_file_name(PurePosixPath(entry.file).name) if usual else None
        if said and said.label != entry.label:
            contradicting.append(entry.file)
            said = None
        named += said is not None or entry.group != ""
        if outcome.depth is not None:
            depths.append(outcome.depth)
        unnamed_subtype = "normal" if usual and entry.label == NORMAL else "unknown"
        kept.append(entry)
        examples.append(
            Example(
                file=entry.file,
                split=entry.split or UNCUT,
                subtype=said.subtype if said else unnamed_subtype,
                label=entry.findings if kind == FINDINGS else classes[entry.label],
                group=entry.group or (said.group if said else entry.file),
                width=outcome.width,
                height=outcome.height,
                sha256=outcome.sha256,
                known=entry.known,
            )
        )
        if outcome.two_levels:
            like_masks.append(entry.file)
    notes = (*_depth_notes(depths), *_mask_notes(like_masks))
    given = sum(entry.group != "" for entry in kept)
    return Inspection(tuple(kept), tuple(examples), tuple(left_out), named, tuple(contradicting), notes, given)


def _depth_notes(depths: list[Depth]) -> tuple[str, ...]:
    """Returns what a reader must know of how 16-bit images were read: greys of different files may not compare."""
    guessed = [depth for depth in depths if depth.bits < 16 and not depth.stated]
    whole = [depth for depth in depths if depth.bits == 16]
    notes = []
    if guessed:
        bits = guessed[0].bits
        notes.append(
            f"{len(guessed):,} of {len(depths):,} 16-bit images hold no value above {2**bits - 1:,}: they were read as "
            f"images of {bits} bits, in which that value is white."
        )
    if guessed and whole:
        notes.append(
            f"The other {len(whole):,} have 65,535 as white: if all were written in one way, write them again with "
            "values of one range, because their grey levels cannot be compared."
        )
    if whole and max(depth.highest for depth in whole) < DARK:
        notes.append(
            f"{len(whole):,} 16-bit images hold no value above {max(depth.highest for depth in whole):,}, a quarter of "
            "their range at most, and come out dark: write them again with values up to 65,535."
        )
    return tuple(notes)


def _mask_notes(files: list[str]) -> tuple[str, ...]:
    """Returns what a reader must know of images that look like masks, which were read as radiographs all the same."""
    if not files:
        return ()
    which = "1 image holds" if len(files) == 1 else f"{len(files):,} images hold"
    folder = PurePosixPath(files[0]).parent
    return (
        f"{which} two grey levels only, as masks do, the first in {folder}: if they are no radiographs, put them into "
        "a folder called masks and prepare again.",
    )


def _read_all(reader: Reader, entries: tuple[Entry, ...]) -> Iterator[tuple[Entry, bytes | UserError]]:
    """Yields every entry with its bytes, or with the reason why there are none."""
    for entry in entries:
        try:
            yield entry, reader.read(entry)
        except UserError as error:
            yield entry, error


def _examined(item: tuple[Entry, bytes | UserError]) -> _Image | LeftOut:
    """Returns what was found in an image, or why it is left out."""
    entry, data = item
    try:
        if isinstance(data, UserError):
            raise data
        data, decoded = as_stored(data, name=entry.file)
        # not by numpy, which would take eight times the memory of the image
        two_levels = np.count_nonzero(cv2.calcHist([decoded.grey], [0], None, [256], [0, 256])) == 2
        return _Image(hashlib.sha256(data).hexdigest(), *decoded.grey.shape, decoded.depth, bool(two_levels))
    except UserError as error:
        return LeftOut(entry.file, str(error))
