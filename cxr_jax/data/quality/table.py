"""The quality of every image of a prepared data set, measured once and kept beside its records."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cxr_jax.data.cache import encoded_images
from cxr_jax.data.decode import decode_grey, to_square
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.quality.measures import MEASURES, VERSION, measure_quality
from cxr_jax.runs import files

THUMBNAIL_SIDE = 32
"""Side of the small images that tell whether a picture is a chest at all, in pixels."""


@dataclass(frozen=True)
class QualityTable:
    """Measures of N images."""

    columns: dict[str, np.ndarray]  # float64 [N] each, by name of the measure
    thumbnails: UInt8[np.ndarray, "N 32 32"]

    def rows(self, rows: np.ndarray) -> QualityTable:
        """Returns the given rows, indices or a mask."""
        return QualityTable({name: values[rows] for name, values in self.columns.items()}, self.thumbnails[rows])

    @classmethod
    def joined(cls, tables: Sequence[QualityTable]) -> QualityTable:
        """Returns the rows of several tables, one after the other."""
        columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
        return cls(columns, np.concatenate([table.thumbnails for table in tables]))


def thumbnail(grey: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "32 32"]:
    """Returns a decoded image squashed to 32 pixels."""
    return to_square(grey, THUMBNAIL_SIDE)


def quality_table(prepared: PreparedData, *, track: Track = silently) -> QualityTable:
    """Returns the measures of every image of the prepared data, in the order of its table.

    They are computed at the first call and kept beside the records. If the kept file cannot be read, it is written
    again.

    Raises:
        UserError: the records cannot be read, or the place cannot be written.
    """
    path = prepared.path / "quality" / f"{prepared.fingerprint[:16]}-{VERSION}.npz"
    if (table := _read(path, len(prepared.examples))) is not None:
        return table
    # TFDS loads itself by replacing Python's import for a moment, which a thread that draws a bar would run into.
    import tensorflow_datasets  # noqa: F401

    names = (example.file for example in prepared.examples)
    items = zip(names, encoded_images(prepared), strict=True)
    rows, thumbnails = [], []
    with track("Measuring quality", len(prepared.examples)) as advance:
        for measures, small in map_in_order(_measured, items):
            rows.append([measures[name] for name in MEASURES])
            thumbnails.append(small)
            advance(1)
    values = np.array(rows, np.float64)
    with files.atomic_path(path) as unfinished:
        np.savez(unfinished, values=values, thumbnails=np.stack(thumbnails))
    return _table(values, np.stack(thumbnails))


def _measured(item: tuple[str, bytes]) -> tuple[dict[str, float], np.ndarray]:
    name, data = item
    grey = decode_grey(data, name=name)
    return measure_quality(grey), thumbnail(grey)


def _table(values: np.ndarray, thumbnails: np.ndarray) -> QualityTable:
    return QualityTable(dict(zip(MEASURES, values.T, strict=True)), thumbnails)


def _read(path: Path, count: int) -> QualityTable | None:
    """Returns the table kept at `path`, or None if there is none for that many images."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            values, thumbnails = kept["values"], kept["thumbnails"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = values.shape == (count, len(MEASURES)) and thumbnails.shape == (count, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return _table(values, thumbnails) if fits and np.isfinite(values).all() else None
