"""Reading every image of a source once: its content, size and whether it can be decoded at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from cxr_jax.data.decode import decode_grey, without_header
from cxr_jax.data.examples import Example
from cxr_jax.data.file_names import parse_file_name
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.progress import Track
from cxr_jax.data.sources import Entry, LeftOut, Reader
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL

UNCUT = ""
"""Split of an example whose source has no splits, until one is cut."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a source."""

    entries: tuple[Entry, ...]  # of the examples, in the same order
    examples: tuple[Example, ...]
    left_out: tuple[LeftOut, ...]
    named: int  # examples whose group is told by the file name
    contradicting: tuple[str, ...]  # files whose name tells another class than their folder; the folder counts


def inspect(reader: Reader, entries: tuple[Entry, ...], track: Track) -> Inspection:
    """Read and decode every entry in threads; what cannot be decoded is left out with its reason."""
    kept, examples, left_out, contradicting, named = [], [], [], [], 0
    with track("Reading", len(entries)) as advance:
        outcomes = []
        for outcome in map_in_order(_examined, _read_all(reader, entries)):
            outcomes.append(outcome)
            advance(1)
    for entry, outcome in zip(entries, outcomes, strict=True):
        if isinstance(outcome, LeftOut):
            left_out.append(outcome)
            continue
        said = parse_file_name(PurePosixPath(entry.file).name)
        if said and said.label != entry.label:
            contradicting.append(entry.file)
            said = None
        named += said is not None
        sha256, height, width = outcome
        unnamed_subtype = "normal" if entry.label == NORMAL else "unknown"
        kept.append(entry)
        examples.append(
            Example(
                file=entry.file,
                split=entry.split or UNCUT,
                subtype=said.subtype if said else unnamed_subtype,
                label=CLASS_NAMES[entry.label],
                group=said.group if said else entry.file,
                width=width,
                height=height,
                sha256=sha256,
            )
        )
    return Inspection(tuple(kept), tuple(examples), tuple(left_out), named, tuple(contradicting))


def _read_all(reader: Reader, entries: tuple[Entry, ...]) -> Iterator[tuple[Entry, bytes | UserError]]:
    """Yield every entry with its bytes, or with the reason why there are none."""
    for entry in entries:
        try:
            yield entry, reader.read(entry)
        except UserError as error:
            yield entry, error


def _examined(item: tuple[Entry, bytes | UserError]) -> tuple[str, int, int] | LeftOut:
    """Return (sha256, height, width) of an image, or why it is left out."""
    entry, data = item
    try:
        if isinstance(data, UserError):
            raise data
        data = without_header(data, name=entry.file)
        return hashlib.sha256(data).hexdigest(), *decode_grey(data, name=entry.file).shape
    except UserError as error:
        return LeftOut(entry.file, str(error))
