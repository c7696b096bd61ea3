"""Look-up tables of DICOM, read as their writers meant them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import RawDataElement

MAX_SEQUENCE_BYTES = 2**20
"""Longest sequence that is parsed; the largest look-up table has 128 KiB."""


@dataclass(frozen=True)
class LookUpTable:
    """A look-up table of DICOM (PS3.3 C.11.1.1 and C.11.2.1.1): `entries[i]` is what value `first + i` becomes."""

    entries: np.ndarray  # float64 [N], 0..2**bits - 1
    first: int
    bits: int  # that the entries take, 8 to 16; no more than the file states, often fewer

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the entries of `values`; those outside of the table get its first or its last entry."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)]


def read_table(elements: Dataset, keyword: str, inputs: tuple[float, float]) -> LookUpTable | None:
    """Returns the first look-up table of a sequence, or None if no item of it holds one.

    Args:
        elements: of the file.
        keyword: of the sequence.
        inputs: the lowest and the highest value that can be looked up.

    Raises:
        ValueError: the table contradicts itself.
    """
    raw = elements.get_item(keyword)
    if raw is None or not raw.value:
        return None
    if isinstance(raw.value, bytes) and len(raw.value) > MAX_SEQUENCE_BYTES:
        raise ValueError("too long a sequence")
    for item in elements[keyword].value:
        # some writers put in every optional element, empty where they have nothing to say
        descriptor, data = item.get_item("LUTDescriptor"), item.get_item("LUTData")
        if descriptor is not None and descriptor.value and data is not None and data.value:
            return _table(descriptor, data, inputs)
    return None


def read_words(raw: RawDataElement) -> tuple[int, ...]:
    """Returns the value of an element as unsigned words of 16 bits; struct.error if it is not made of them."""
    return struct.unpack(f"{'<' if raw.is_little_endian else '>'}{len(raw.value) // 2}H", raw.value)


def _table(descriptor: RawDataElement, data: RawDataElement, inputs: tuple[float, float]) -> LookUpTable:
    """Returns the table of one item."""
    count, first, bits = read_words(descriptor)
    count = count or 2**16
    # Tables of 8 bits may be packed in bytes; all others are words.
    if bits <= 8 and len(data.value) < 2 * count:
        values = np.frombuffer(data.value, np.uint8, count)
    else:
        values = np.array(read_words(data)[:count])
    if len(values) < count:
        raise ValueError("a table of fewer entries than it says")
    entries = values.astype(np.float64)
    highest = int(entries.max())
    if not 8 <= bits <= 16 or highest >= 2**bits:
        raise ValueError("a table of other bits than it says")
    # Many descriptors state the 16 bits of a word, whatever the entries take: white would come out black.
    return LookUpTable(entries, _first(first, descriptor.VR, count, inputs), max(8, highest.bit_length()))


def _first(first: int, vr: str | None, count: int, inputs: tuple[float, float]) -> int:
    """Returns the first value that is mapped; it is signed where inputs can be negative (PS3.3 C.11.2.1.1).

    Files with implicit VR do not say whether it is, and others say it wrongly: another reading that meets the inputs
    goes before one that meets none.
    """
    readings = [first, first - 2**16 if first >= 2**15 else first]
    if vr == "SS" or inputs[0] < 0:
        readings.reverse()
    meets = [reading <= inputs[1] and reading + count > inputs[0] for reading in readings]
    return readings[1] if meets == [False, True] else readings[0]
