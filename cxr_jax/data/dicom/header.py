"""The elements of a DICOM file that describe its pixels, read with bounds; all others are passed over."""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cxr_jax.data.dicom.tables import LookUpTable, read_table, read_words
from cxr_jax.data.encoded import DICOM_PREFIX, DICOM_PREFIX_AT, MAX_BYTES, check_bytes, check_pixels
from cxr_jax.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

MODALITIES = ("CR", "DX")
"""Computed and digital radiography."""

RADIOGRAPH_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray, for processing
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture: what many archives export radiographs as
    "1.2.840.10008.5.1.4.1.1.7.2",  # the same, one grey byte a pixel
    "1.2.840.10008.5.1.4.1.1.7.3",  # the same, one grey word a pixel
)
"""SOP classes of radiographs, asked where a header tells no modality: de-identification may have removed it."""

READ = (
    "SOPClassUID",
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
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
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

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
"""Transfer syntaxes whose pixels are not encoded: implicit and explicit VR, deflated, and big endian."""

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")

MAX_READS = 100_000
"""How often the parser may read; 64 MiB could hold millions of empty elements, where real files have hundreds."""

DAMAGED = "is a damaged DICOM file and cannot be read"

_META_GROUP = 2
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Header:
    """What is needed to turn the stored pixels of one frame into grey."""

    rows: int
    columns: int
    bits_allocated: int  # 8 or 16
    bits_stored: int  # 8 to bits_allocated
    high_bit: int  # bits_stored - 1 unless the pixels lie in the upper bits
    signed: bool
    padding: tuple[int, int] | None  # lowest and highest value of pixels that are no part of the image
    inverted: bool  # MONOCHROME1: the lowest value is white
    modality: LookUpTable | None  # in place of slope and intercept
    slope: float
    intercept: float
    voi: LookUpTable | None  # in place of the window
    window: tuple[float, float] | None  # centre and width
    function: str  # one of FUNCTIONS: what the window means


class Elements(NamedTuple):
    """What is kept of a parsed file."""

    syntax: UID  # transfer syntax; implicit VR little endian, the default of DICOM, where the file tells none
    sop_class: str  # UID; empty where the file tells none
    data_set: Dataset  # the elements that were to be kept, as far as the file has them


def read_elements(data: bytes, name: str, kept: Sequence[str] = READ) -> Elements:
    """Returns the elements with the keywords `kept` of a DICOM file, with or without the preamble and the prefix.

    Raises:
        UserError: pydicom is not installed, the file is damaged, or it is stored in a way that is not read.
    """
    try:
        from pydicom import uid
        from pydicom.filereader import read_dataset
    except ModuleNotFoundError:
        raise UserError(
            f"{name} is a DICOM file, which needs the package pydicom: pip install 'cxr-jax[dicom]', or convert it to "
            "PNG"
        ) from None
    _silence_pydicom()
    file = _Bounded(data)
    prefixed = data.startswith(DICOM_PREFIX, DICOM_PREFIX_AT)
    file.seek(DICOM_PREFIX_AT + len(DICOM_PREFIX) if prefixed else 0)
    try:
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != _META_GROUP)
        syntax = uid.UID(_text(meta, "TransferSyntaxUID") or uid.ImplicitVRLittleEndian)
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            file = _Bounded(_inflated(data[file.tell() :], name))
        # pydicom sees for itself where a data set has explicit VRs though it should not, or the other way round
        implicit = syntax == uid.ImplicitVRLittleEndian
        data_set = read_dataset(file, implicit, syntax != uid.ExplicitVRBigEndian, specific_tags=_tags(kept))
        return Elements(syntax, _text(data_set, "SOPClassUID") or _text(meta, "MediaStorageSOPClassUID"), data_set)
    except UserError:
        raise
    except Exception:  # the parser meets damage with errors of a dozen kinds, and quotes values in them
        raise UserError(f"{name} {DAMAGED}") from None


def read_header(elements: Elements, name: str) -> Header:
    """Returns the description of the pixels that `elements` give.

    Raises:
        UserError: it is not one grey frame of CR or DX of 8 to 16 bits, has too many pixels, or contradicts itself.
    """
    try:
        _check_kind(elements, name)
        header = _header(elements.data_set)
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
    if not header.bits_stored <= header.high_bit + 1 <= header.bits_allocated:
        raise UserError(f"{name} {DAMAGED}: it keeps its pixels in bits that it does not have")
    if not (math.isfinite(header.slope) and math.isfinite(header.intercept)) or header.slope == 0:
        raise UserError(f"{name} {DAMAGED}: its rescale slope or intercept has no meaning")
    if header.window is not None and header.function not in FUNCTIONS:
        raise UserError(f"{name} has a window of an unknown function; {', '.join(FUNCTIONS)} are read")
    return header


def read_pixel_data(elements: Elements, name: str) -> bytes:
    """Returns the value of the element PixelData, its words little endian; UserError if there is none."""
    try:
        raw = elements.data_set.get_item("PixelData")
    except Exception:
        raise UserError(f"{name} {DAMAGED}") from None
    if raw is None or not isinstance(raw.value, bytes) or not raw.value:
        raise UserError(f"{name} {DAMAGED}: it holds no image")
    # only encoded pixels come in pieces whose length is told nowhere
    if raw.length == _UNDEFINED and elements.syntax in NATIVE:
        raise UserError(f"{name} {DAMAGED}: its pixels are encoded, and it does not say how")
    if raw.is_little_endian or raw.VR != "OW":
        return raw.value
    return np.frombuffer(raw.value, ">u2", len(raw.value) // 2).astype("<u2").tobytes()


class _Bounded(io.BytesIO):
    """Bytes that may be read only so many times."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns up to `size` bytes; ValueError after MAX_READS calls."""
        self._reads += 1
        if self._reads > MAX_READS:
            raise ValueError("too many elements")
        return super().read(size)


def _inflated(data: bytes, name: str) -> bytes:
    """Returns a deflated data set, unpacked no further than a file may be large; UserError beyond."""
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_BYTES + 1)
    check_bytes(len(inflated), name)
    return inflated


def _tags(kept: Sequence[str]) -> list[int]:
    from pydicom.datadict import tag_for_keyword

    return [tag_for_keyword(keyword) for keyword in kept]


def _silence_pydicom() -> None:
    """Keeps to itself what pydicom warns of: its warnings quote values, which may tell a patient."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom\b")


def _check_kind(elements: Elements, name: str) -> None:
    """Raises UserError unless `elements` are those of one grey frame of CR or DX."""
    data_set = elements.data_set
    modality = _text(data_set, "Modality")
    if modality and modality not in MODALITIES:
        # Two letters are a modality; anything longer might be a name in the wrong place.
        stated = f"of modality {modality}" if re.fullmatch("[A-Z]{2}", modality) else "of unknown modality"
        raise UserError(f"{name} is a DICOM file {stated}; only {' and '.join(MODALITIES)} are radiographs to be read")
    if not modality and elements.sop_class and elements.sop_class not in RADIOGRAPH_CLASSES:
        raise UserError(
            f"{name} is a DICOM file of another class than those of radiographs, and tells no modality; only "
            f"{' and '.join(MODALITIES)} are read"
        )
    if int(_text(data_set, "NumberOfFrames") or 1) > 1:
        raise UserError(f"{name} holds several frames; only single radiographs are read")
    photometric = _text(data_set, "PhotometricInterpretation")
    if not photometric and "PixelData" not in data_set:
        raise UserError(f"{name} is a DICOM file, but it holds no image")
    if not photometric:
        raise UserError(f"{name} {DAMAGED}: it does not say whether its image is grey")
    if _integer(data_set, "SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(f"{name} is a DICOM file in colour; radiographs are grey (MONOCHROME1 or MONOCHROME2)")


def _header(elements: Dataset) -> Header:
    signed = _integer(elements, "PixelRepresentation", 0) == 1
    bits_stored = _integer(elements, "BitsStored")
    function = _text(elements, "VOILUTFunction") or FUNCTIONS[0]
    slope, intercept = _first_number(elements, "RescaleSlope", 1.0), _first_number(elements, "RescaleIntercept", 0.0)
    stored = (-(2 ** (bits_stored - 1)), 2 ** (bits_stored - 1) - 1) if signed else (0, 2**bits_stored - 1)
    modality = read_table(elements, "ModalityLUTSequence", stored)
    rescaled = sorted(value * slope + intercept for value in stored)
    if modality is not None:
        rescaled = [modality.entries.min(), modality.entries.max()]
    return Header(
        rows=_integer(elements, "Rows"),
        columns=_integer(elements, "Columns"),
        bits_allocated=_integer(elements, "BitsAllocated"),
        bits_stored=bits_stored,
        high_bit=_integer(elements, "HighBit", bits_stored - 1),
        signed=signed,
        padding=_padding(elements, signed),
        inverted=_text(elements, "PhotometricInterpretation") == "MONOCHROME1",
        modality=modality,
        slope=slope,
        intercept=intercept,
        voi=read_table(elements, "VOILUTSequence", (rescaled[0], rescaled[1])),
        window=_window(elements, function),
        function=function,
    )


def _window(elements: Dataset, function: str) -> tuple[float, float] | None:
    """Returns centre and width of the first window that has a meaning: further ones are alternatives to it.

    Many files have a window of width 0, which says that nobody chose one.
    """
    smallest = 1.0 if function == "LINEAR" else 0.0
    for centre, width in zip(_numbers(elements, "WindowCenter"), _numbers(elements, "WindowWidth"), strict=False):
        if math.isfinite(centre) and math.isfinite(width) and width >= smallest and width > 0:
            return centre, width
    return None


def _padding(elements: Dataset, signed: bool) -> tuple[int, int] | None:
    """Returns the lowest and the highest value of pixels that pad the image; None if the file tells none."""
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        raw = elements.get_item(keyword)
        if raw is not None and raw.value:
            value = read_words(raw)[0]
            # signed as the pixels are, whatever representation of its value the file states
            ends.append(value - 2**16 if signed and value >= 2**15 else value)
        elif not ends:
            return None
    return min(ends), max(ends)


def _values(elements: Dataset, keyword: str) -> list[Any]:
    """Returns the values of an element as pydicom reads them; empty if it is not there or says nothing."""
    value = elements.get(keyword)
    if value is None or value == "":
        return []
    return list(value) if elements[keyword].VM > 1 else [value]


def _text(elements: Dataset, keyword: str) -> str:
    """Returns the first value of a text element, without padding; empty if it is not there."""
    return str(next(iter(_values(elements, keyword)), "")).strip(" \0")


def _numbers(elements: Dataset, keyword: str) -> list[float]:
    """Returns the values of an element of decimal strings, NaN for one that is left open; empty if it is not there."""
    return [math.nan if value == "" else float(value) for value in _values(elements, keyword)]


def _first_number(elements: Dataset, keyword: str, default: float) -> float:
    """Returns the first value of an element of decimal strings; `default` if it is not there."""
    return next(iter(_numbers(elements, keyword)), default)


def _integer(elements: Dataset, keyword: str, default: int | None = None) -> int:
    """Returns an element of one whole number; `default` if it is not there, ValueError without one."""
    (value,) = _values(elements, keyword) or [default]
    if not isinstance(value, int):
        raise ValueError(f"no {keyword}")
    return value
