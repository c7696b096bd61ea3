"""Decoded radiographs with what is known of each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from cxr_jax.images.made_rows import MadeRows
from cxr_jax.vocabulary import CLASS_NAMES


@dataclass(frozen=True)
class SelectedRows:
    """Some rows of a memory-mapped array, of which only those are read from the file that are asked for."""

    source: np.ndarray  # [M, ...]
    rows: np.ndarray  # [N], which of them

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape [N, ...] that the rows have together."""
        return (len(self.rows), *self.source.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The type of a value."""
        return self.source.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        return self.source[self.rows[index]]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Returns all the rows, read into memory."""
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class JoinedRows:
    """Images of several arrays one after the other, of which only those are read that are asked for."""

    parts: tuple[np.ndarray | SelectedRows | MadeRows, ...]  # [N1, ...], [N2, ...] ... of one type

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape [N, ...] that the parts have together."""
        return (len(self), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The type of a value."""
        return self.parts[0].dtype

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        rows = np.arange(len(self))[index]
        if rows.ndim == 0:
            return self[rows[None]][0]
        found, first = np.empty((len(rows), *self.shape[1:]), self.dtype), 0
        for part in self.parts:
            inside = (rows >= first) & (rows < first + len(part))
            found[inside] = part[rows[inside] - first]
            first += len(part)
        return found

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Returns all the images, read into memory."""
        return np.asarray(self[:], dtype=dtype)


Pixels = np.ndarray | SelectedRows | MadeRows | JoinedRows
"""Images, or what gives them when they are asked for."""


@dataclass(frozen=True)
class Replay:
    """The last images of a set, of which an epoch visits some only, drawn anew each time."""

    first: int  # their first row; all from there on are of them
    visits: int  # how many an epoch visits


@dataclass(frozen=True)
class ImageSet:
    """Images of one split, ready to be batched; every field but `classes` and `replay` has length N and the same order.

    `images` may be memory-mapped from a cache and must not be written to.
    """

    # uint8 [N, S, S], grey, 0..255; or float32 [N, C], their pooled features
    images: Pixels
    # int32 [N], index into `classes`; of findings that occur together float32 [N, K]: 1 present, 0 absent, NaN unknown
    labels: np.ndarray
    ids: np.ndarray  # int32 [N], row in the table of the prepared data; copies of balancing have ids beyond its end
    files: tuple[str, ...]  # path in the source, such as train/NORMAL/IM-0115-0001.jpeg
    groups: tuple[str, ...]  # the best stand-in for a patient, see `file_names`
    subtypes: tuple[str, ...]  # one of SUBTYPE_NAMES
    classes: tuple[str, ...] = CLASS_NAMES  # not one an image, but all that there are
    replay: Replay | None = None  # None: an epoch visits all

    def __post_init__(self) -> None:
        """Refuses fields of unequal length."""
        lengths = {len(part) for part in (self.labels, self.ids, self.files, self.groups, self.subtypes)}
        if lengths != {len(self.images)}:
            raise ValueError(f"fields of an ImageSet of {len(self.images)} images have lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch visits."""
        return len(self) if self.replay is None else self.replay.first + self.replay.visits

    def select(self, rows: np.ndarray) -> ImageSet:
        """Returns the images of `rows` [M], in that order; which of them are mixed in is no longer told."""

        def of(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[row] for row in rows)

        return dataclasses.replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            ids=self.ids[rows],
            files=of(self.files),
            groups=of(self.groups),
            subtypes=of(self.subtypes),
            replay=None,
        )
