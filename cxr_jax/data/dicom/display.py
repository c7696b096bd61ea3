"""Stored values as grey: rescaling, window or look-up table, and inversion, in the order of PS3.4 N.2."""

from __future__ import annotations

import numpy as np

from cxr_jax.data.dicom.header import Header, LookUpTable

BLOCK_ROWS = 256
"""Rows that are looked up together: numpy widens indices to 64 bits."""


def as_grey(stored: np.ndarray, header: Header) -> np.ndarray:
    """Return `stored`, (u)int8 or (u)int16 [H, W], as it is to be shown: uint8 [H, W], 0 (black) to 255.

    Every stored value has one grey: modality look-up table or rescaling, then VOI look-up table or window, then
    inversion for MONOCHROME1. A file without either shows its lowest value black and its highest white.
    """
    kind = np.iinfo(stored.dtype)
    values = np.arange(kind.min, kind.max + 1)
    shown = _shown(_rescaled(values, header), header, _rescaled(_range(stored), header))
    greys = np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    if header.inverted:
        greys = 255 - greys
    # As an unsigned index the negative values come last.
    table = np.roll(greys, kind.min)
    grey = np.empty(stored.shape, np.uint8)
    index = np.ascontiguousarray(stored).view(f"u{stored.dtype.itemsize}")
    for start in range(0, len(grey), BLOCK_ROWS):
        grey[start : start + BLOCK_ROWS] = table[index[start : start + BLOCK_ROWS]]
    return grey


def _range(stored: np.ndarray) -> np.ndarray:
    """Return the lowest and the highest stored value, int64 [2]."""
    return np.array([stored.min(), stored.max()], np.int64)


def _rescaled(values: np.ndarray, header: Header) -> np.ndarray:
    """Return stored values in the units of the modality, float64."""
    if header.modality is not None:
        return _looked_up(values, header.modality)
    return values * header.slope + header.intercept


def _shown(values: np.ndarray, header: Header, found: np.ndarray) -> np.ndarray:
    """Return how bright each of `values` is, 0 to 1; `found` are the values that the darkest and brightest pixel have.

    The windows are those of PS3.3 C.11.2.1.2 and C.11.2.1.3.
    """
    if header.voi is not None:
        return _looked_up(values, header.voi) / (2**header.voi.bits - 1)
    if header.window is None:
        low, high = found.min(), found.max()
        return (values - low) / ((high - low) or 1.0)
    centre, width = header.window
    if header.function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if header.function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(np.float64)
    return (values - centre) / width + 0.5


def _looked_up(values: np.ndarray, table: LookUpTable) -> np.ndarray:
    """Return the entries of `values`; those outside of the table get its first or its last entry."""
    index = np.clip(np.rint(values) - table.first, 0, len(table.entries) - 1)
    return table.entries[index.astype(np.int64)]
