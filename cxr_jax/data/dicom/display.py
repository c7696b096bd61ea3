"""Stored values as grey: rescaling, window or look-up table, and inversion, in the order of PS3.4 N.2."""

from __future__ import annotations

import numpy as np

from cxr_jax.data.dicom.header import Header

BLOCK_ROWS = 256
"""Rows that are looked up together: numpy widens indices to 64 bits."""


def as_grey(words: np.ndarray, header: Header) -> np.ndarray:
    """Returns the pixels as they are to be shown: uint8 [H, W], 0 (black) to 255.

    Every stored value has one grey: modality look-up table or rescaling, then VOI look-up table or window, then
    inversion for MONOCHROME1. A file without either shows its lowest value black and its highest white. Padding is
    black, and no part of that range (PS3.3 C.7.5.1.1.2).

    Args:
        words: of pixels, all bits that are allocated, uint8 or uint16 [H, W].
        header: what the file says of them.
    """
    every = np.arange(2**header.bits_allocated)
    stored = _stored(every, header)
    found = np.zeros(len(every), bool)
    for rows in _blocks(words):
        found[rows] = True
    padding = _padding(every, stored, found, header)
    values = _rescaled(stored, header)
    greys = np.rint(255 * np.clip(_shown(values, header, values[found & ~padding]), 0, 1)).astype(np.uint8)
    if header.inverted:
        greys = 255 - greys
    greys[padding] = 0
    return np.concatenate([greys[rows] for rows in _blocks(words)])


def _blocks(words: np.ndarray) -> list[np.ndarray]:
    return [words[start : start + BLOCK_ROWS] for start in range(0, len(words), BLOCK_ROWS)]


def _stored(words: np.ndarray, header: Header) -> np.ndarray:
    """Returns the values that words hold, int64: without the bits beside those that are stored, the sign repeated.

    Old files keep overlays in the other bits.
    """
    values = words >> (header.high_bit + 1 - header.bits_stored) & (2**header.bits_stored - 1)
    if header.signed:
        values = values - (values >> (header.bits_stored - 1) << header.bits_stored)
    return values


def _padding(words: np.ndarray, stored: np.ndarray, found: np.ndarray, header: Header) -> np.ndarray:
    """Returns which words are padding, bool.

    Args:
        words: all that there can be.
        stored: the values that they hold.
        found: which of them the image has.
        header: what the file says of its padding. It is not believed where it leaves no image, or where the image has
            both darker and brighter values, for then it is a value like others.
    """
    if header.padding is None:
        return np.zeros(len(words), bool)
    low, high = header.padding
    if stored.min() <= low and high <= stored.max():
        padding = (low <= stored) & (stored <= high)
    else:
        # a value that takes the bits beside the stored ones too, as 65535 does where 12 are stored
        padding = (low % len(words) <= words) & (words <= high % len(words))
    image, padded = stored[found & ~padding], stored[found & padding]
    if len(image) == 0 or (len(padded) and image.min() < padded.min() and padded.max() < image.max()):
        return np.zeros(len(words), bool)
    return padding


def _rescaled(values: np.ndarray, header: Header) -> np.ndarray:
    """Returns stored values in the units of the modality, float64."""
    if header.modality is not None:
        return header.modality(values)
    return values * header.slope + header.intercept


def _shown(values: np.ndarray, header: Header, found: np.ndarray) -> np.ndarray:
    """Returns how bright each of `values` is, 0 to 1; `found` are the values of the image's pixels."""
    if header.voi is not None:
        return header.voi(values) / (2**header.voi.bits - 1)
    if header.window is None:
        low, high = found.min(), found.max()
        return (values - low) / ((high - low) or 1.0)
    from pydicom import Dataset
    from pydicom.pixels import apply_windowing

    window = Dataset()
    window.WindowCenter, window.WindowWidth = header.window
    window.VOILUTFunction = header.function
    # one bit that is stored: from 0 to 1
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 1, 0
    with np.errstate(over="ignore"):
        return apply_windowing(values, window)
