"""Radiographs in DICOM files: one frame of CR or DX as grey pixels, and nothing else of the file.

Only the elements that describe the pixels are kept while a file is parsed (`header.READ`). No value of any other
element is quoted. No name, date or number of a patient can therefore reach an error, a log, a table or prepared
records.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from cxr_jax.data.dicom.display import as_grey
from cxr_jax.data.dicom.header import read_elements, read_header, read_pixel_data
from cxr_jax.data.dicom.pixels import stored_words

__all__ = ["decode_dicom"]


def decode_dicom(data: bytes, name: str) -> UInt8[np.ndarray, "H W"]:
    """Returns the radiograph in a DICOM file as it is to be shown, uint8 [H, W], 0 (black) to 255.

    Raises:
        UserError: pydicom is not installed; the file is damaged, in colour, of several frames, of another modality
            than CR or DX, or has too many pixels; or there is no decoder for its pixels.
    """
    elements = read_elements(data, name)
    header = read_header(elements, name)
    return as_grey(stored_words(read_pixel_data(elements, name), elements.syntax, header, name), header)
