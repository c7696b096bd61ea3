"""The elements of a DICOM file that describe its pixels, read with bounds; all others are passed over."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cxr_jax.data.encoded import check_pixels
from cxr_jax.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

MODALITIES = ("CR", "DX")
"""Computed and digital radiography."""

READ = (
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PixelData",
)
"""Keywords of the elements that are kept while a file is parsed."""

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")

MAX_READS = 100_000
"""How often the parser may read; 64 MiB could hold millions of empty elements, where real files have hundreds."""

MAX_SEQUENCE_BYTES = 2**20
"""Longest sequence that is parsed; the largest look-up table has 128 KiB."""

DAMAGED = "is a damaged DICOM file and cannot be read"

_MAGIC_AT, _MAGIC = 128, b"DICM"
_META_GROUP = 2


@dataclass(frozen=True)
class LookUpTable:
    """A look-up table of DICOM (PS3.3 C.11.1.1 and C.11.2.1.1): `entries[i]` is what value `first + i` becomes."""

    entries: np.ndarray  # float64 [N], 0..2**bits - 1
    first: int
    bits: int


@dataclass(frozen=True)
class Header:
    """What is needed to turn the stored pixels of one frame into grey."""

    rows: int
    columns: int
    bits_allocated: int  # 8 or 16
    bits_stored: int  # 8 to bits_allocated
    signed: bool
    inverted: bool  # MONOCHROME1: the lowest value is white
    modality: LookUpTable | None  # in place of slope and intercept
    slope: float
    intercept: float
    voi: LookUpTable | None  # in place of the window
    window: tuple[float, float] | None  # centre and width
    function: str  # one of FUNCTIONS: what the window means


def is_dicom(data: bytes) -> bool:
    """Return True if `data` begins as a DICOM file does."""
    return data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def read_elements(data: bytes, name: str) -> tuple[UID, Dataset]:
    """Return the transfer syntax of a DICOM file and those of its elements that READ lists.

    Raises:
        UserError: pydicom is not installed, the file is damaged, or it is stored in a way that is not read.
    """
    try:
        from pydicom import uid
        from pydicom.filereader import read_dataset
    except ModuleNotFoundError:
        raise UserError(
            f"{name} is a DICOM file, which takes the package pydicom: pip install 'cxr-jax[dicom]', or convert it to "
            "PNG"
        ) from None
    _silence_pydicom()
    file = _Bounded(data)
    file.seek(_MAGIC_AT + len(_MAGIC))
    try:
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != _META_GROUP)
        syntax = uid.UID(_text(meta, "TransferSyntaxUID"))
        # A deflated file would be unpacked whole, without a bound.
        if syntax in (uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
            raise UserError(
                f"{name} is stored as {syntax.name}, which is not read: convert it to Explicit VR Little Endian"
            )
        implicit = syntax == uid.ImplicitVRLittleEndian
        return syntax, read_dataset(file, implicit, True, specific_tags=_tags())
    except UserError:
        raise
    except Exception:  # the parser meets damage with errors of a dozen kinds, and quotes values in them
        raise UserError(f"{name} {DAMAGED}") from None


def read_header(elements: Dataset, name: str) -> Header:
    """Return the description of the pixels that `elements` give.

    Raises:
        UserError: it is not one grey frame of CR or DX of 8 to 16 bits, has too many pixels, or contradicts itself.
    """
    try:
        _check_kind(elements, name)
        header = _header(elements)
        high_bit = _integer(elements, "HighBit", header.bits_stored - 1)
    except UserError:
        raise
    except Exception:
        raise UserError(f"{name} {DAMAGED}") from None
    if 0 in (header.rows, header.columns):
        raise UserError(f"{name} {DAMAGED}: it says that it has no pixels")
    check_pixels(header.columns, header.rows, name)
    if header.bits_allocated not in (8, 16) or not 8 <= header.bits_stored <= header.bits_allocated:
        raise UserError(
            f"{name} has {header.bits_stored} bits a pixel in {header.bits_allocated}; 8 to 16 bits in 8 or 16 are read"
        )
    if high_bit != header.bits_stored - 1:
        raise UserError(f"{name} keeps its pixels in the upper bits, which is not read: convert it to PNG")
    _check_display(header, name)
    return header


def read_pixel_data(elements: Dataset, name: str) -> bytes:
    """Return the value of the element PixelData; UserError if there is none."""
    try:
        raw = elements.get_item("PixelData")
    except Exception:
        raise UserError(f"{name} {DAMAGED}") from None
    if raw is None or not isinstance(raw.value, bytes) or not raw.value:
        raise UserError(f"{name} {DAMAGED}: it holds no image")
    return raw.value


class _Bounded(io.BytesIO):
    """Bytes that may be read only so many times."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes; ValueError after MAX_READS calls."""
        self._reads += 1
        if self._reads > MAX_READS:
            raise ValueError("too many elements")
        return super().read(size)


def _tags() -> list[int]:
    from pydicom.datadict import tag_for_keyword

    return [tag_for_keyword(keyword) for keyword in READ]


def _silence_pydicom() -> None:
    """Keep to itself what pydicom warns of: its warnings quote values, which may tell a patient."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom\b")


def _check_kind(elements: Dataset, name: str) -> None:
    """Raise UserError unless `elements` are those of one grey frame of CR or DX."""
    modality = _text(elements, "Modality")
    if modality not in MODALITIES:
        # Two letters are a modality; anything longer might be a name in the wrong place.
        stated = f"of modality {modality}" if re.fullmatch("[A-Z]{2}", modality) else "of unknown modality"
        raise UserError(f"{name} is a DICOM file {stated}; only {' and '.join(MODALITIES)} are radiographs to be read")
    if int(_text(elements, "NumberOfFrames") or 1) != 1:
        raise UserError(f"{name} holds several frames; only single radiographs are read")
    photometric = _text(elements, "PhotometricInterpretation")
    if _integer(elements, "SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(f"{name} is a DICOM file in colour; radiographs are grey (MONOCHROME1 or MONOCHROME2)")


def _header(elements: Dataset) -> Header:
    signed = _integer(elements, "PixelRepresentation", 0) == 1
    centres, widths = _numbers(elements, "WindowCenter"), _numbers(elements, "WindowWidth")
    return Header(
        rows=_integer(elements, "Rows"),
        columns=_integer(elements, "Columns"),
        bits_allocated=_integer(elements, "BitsAllocated"),
        bits_stored=_integer(elements, "BitsStored"),
        signed=signed,
        inverted=_text(elements, "PhotometricInterpretation") == "MONOCHROME1",
        modality=_table(elements, "ModalityLUTSequence", signed),
        slope=(_numbers(elements, "RescaleSlope") or [1.0])[0],
        intercept=(_numbers(elements, "RescaleIntercept") or [0.0])[0],
        voi=_table(elements, "VOILUTSequence", signed),
        # Further windows are alternatives; the first is the one to begin with.
        window=(centres[0], widths[0]) if centres and widths else None,
        function=_text(elements, "VOILUTFunction") or FUNCTIONS[0],
    )


def _check_display(header: Header, name: str) -> None:
    """Raise UserError if rescaling or window have no meaning."""
    if not (math.isfinite(header.slope) and math.isfinite(header.intercept)) or header.slope == 0:
        raise UserError(f"{name} {DAMAGED}: its rescale slope or intercept has no meaning")
    if header.window is None:
        return
    if header.function not in FUNCTIONS:
        raise UserError(f"{name} has a window of an unknown function; {', '.join(FUNCTIONS)} are read")
    centre, width = header.window
    smallest = 1 if header.function == "LINEAR" else 0
    if not (math.isfinite(centre) and math.isfinite(width)) or width < smallest or width <= 0:
        raise UserError(f"{name} {DAMAGED}: its window has no meaning")


def _table(elements: Dataset, keyword: str, signed: bool) -> LookUpTable | None:
    """Return the first look-up table of a sequence, or None if there is none; ValueError if it contradicts itself."""
    raw = elements.get_item(keyword)
    if raw is None or not raw.value:
        return None
    if isinstance(raw.value, bytes) and len(raw.value) > MAX_SEQUENCE_BYTES:
        raise ValueError("too long a sequence")
    item = elements[keyword].value[0]
    descriptor, data = item.get_item("LUTDescriptor"), item.get_item("LUTData").value
    entries, first, bits = struct.unpack(
        "<HhH" if (descriptor.VR or "SS" * signed) == "SS" else "<HHH", descriptor.value
    )
    entries = entries or 2**16
    # Tables of 8 bits may be packed in bytes; all others are words.
    width = 1 if bits <= 8 and len(data) < 2 * entries else 2
    values = np.frombuffer(data, f"<u{width}", count=entries).astype(np.float64)
    if not 8 <= bits <= 16 or values.max() >= 2**bits:
        raise ValueError("a table of other bits than it says")
    return LookUpTable(values, first, bits)


def _text(elements: Dataset, keyword: str) -> str:
    """Return the first value of a text element, without padding; empty if it is not there."""
    raw = elements.get_item(keyword)
    if raw is None or not raw.value:
        return ""
    return raw.value.split(b"\\")[0].decode("ascii").strip(" \0")


def _numbers(elements: Dataset, keyword: str) -> list[float]:
    """Return the values of an element of decimal strings; empty if it is not there."""
    raw = elements.get_item(keyword)
    if raw is None or not raw.value or not raw.value.strip(b" \0"):
        return []
    return [float(part) for part in raw.value.decode("ascii").strip(" \0").split("\\")]


def _integer(elements: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an element of 16 bits; `default` if it is not there, ValueError without one."""
    raw = elements.get_item(keyword)
    if raw is None or not raw.value:
        if default is None:
            raise ValueError(f"no {keyword}")
        return default
    return struct.unpack("<H", raw.value)[0]
