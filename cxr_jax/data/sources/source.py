"""What every source of radiographs offers, whatever form it comes in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cxr_jax.data.file_names import natural_key
from cxr_jax.data.sources.passed_over import PassedOver
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, SPLIT_NAMES, Kind


@dataclass(frozen=True)
class Entry:
    """One image of a source, not read yet."""

    file: str  # its name in tables: split/CLASS/name, or CLASS/name where the source has no splits
    split: str | None  # one of SPLIT_NAMES; None where the source has no splits
    label: int  # index into the classes of the listing; 0 where they are findings
    place: str  # where the source finds it: a path in the folder or zip, or a row of an array
    group: str = ""  # what the source says of the patient; empty where file names may tell
    findings: str = ""  # the cell that says which there are, see `data.findings`; empty where classes are exclusive
    known: tuple[tuple[str, str], ...] = ()  # what else the source tells, by name

    @property
    def sort_key(self) -> tuple:
        """Orders entries by split, class and natural file order."""
        return SPLIT_NAMES.index(self.split) if self.split else -1, self.label, natural_key(self.file)


@dataclass(frozen=True)
class LeftOut:
    """An image of the data set that could not become an example, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a source holds, known without reading any image."""

    entries: tuple[Entry, ...]  # sorted by split, class and natural file order
    passed_over: tuple[PassedOver, ...]  # every file that is no entry, counted by folder and reason
    notes: tuple[str, ...]  # sentences for the data card
    phantom: bool  # the images are drawn, not taken from people
    stamp: str  # changes when names, sizes or modification times of entries change
    classes: tuple[str, ...] = CLASS_NAMES  # in the order of the labels
    kind: Kind = EXCLUSIVE  # of the classes
    name: str = ""  # of a published set, under which it is stored unless another is asked for; empty of others


@runtime_checkable
class Source(Protocol):
    """A folder, an archive or an array of radiographs."""

    kind: str
    """`folder`, `zip`, `npz`, `table`, or the name of a published set."""

    listing: Listing

    def opened(self) -> AbstractContextManager[Reader]:
        """Opens the source for reading."""


@runtime_checkable
class Reader(Protocol):
    """Reads the images of an open source."""

    def read(self, entry: Entry) -> bytes:
        """Returns the encoded image.

        Raises:
            UserError: it cannot be read or breaks a limit; told in one sentence.
        """


def by_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Returns `entries` in the order in which they are stored and numbered."""
    return tuple(sorted(entries, key=lambda entry: entry.sort_key))
