"""Radiographs in a MedMNIST array file: `pneumoniamnist.npz`, `pneumoniamnist_64.npz`, ..., `pneumoniamnist_224.npz`.

An .npz is a zip of .npy arrays: `train_images`, `train_labels` and the same for val and test. The images are read one
by one from the compressed stream, so that memory stays flat. The file has no names, so that groups are unknown.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import tokenize
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from cxr_jax.data.encoded import MAX_PIXELS
from cxr_jax.data.sources.archive import DAMAGED, check_packing, open_archive, stamp_of_file
from cxr_jax.data.sources.layout import require_every_class
from cxr_jax.data.sources.passed_over import TOP, Stray, grouped
from cxr_jax.data.sources.source import Entry, Listing, by_order
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, SPLIT_NAMES

MAX_LABEL_BYTES = 64 * 2**20

_OTHER_LABELS = "{path} has other labels than 0 (NORMAL) and 1 (PNEUMONIA) in {split}: is it pneumoniamnist?"

COUNTS = {"pneumoniamnist": (4708, 524, 624), "breastmnist": (546, 78, 156)}
"""Images in train, val and test of the files whose labels are 0 and 1, as published."""

OURS = "pneumoniamnist"

OTHER_SET = "{path} {has} {name}, whose labels do not mean NORMAL and PNEUMONIA: give a pneumoniamnist file"

NOT_SAID = (
    "The file does not say what its labels mean: 0 was read as NORMAL and 1 as PNEUMONIA, as in PneumoniaMNIST, whose "
    "counts of {published} images in train, val and test it does not have."
)

_NAME = re.compile(r"[a-z]*mnist(?:3d)?")

NO_NAMES = "MedMNIST files have no names; file names here are row numbers, and every image is a group of its own."


class NpzSource:
    """The arrays of one MedMNIST file with the two classes of pneumoniamnist."""

    kind = "npz"

    def __init__(self, path: Path) -> None:
        """Lists the rows of the file at `path`; UserError if it does not hold grey images with labels 0 and 1."""
        self._path = path
        _require_not_named_otherwise(path)
        entries = []
        with open_archive(path) as archive:
            for member in archive.infolist():
                check_packing(member, path)
            known = {f"{split}_{kind}.npy" for split in SPLIT_NAMES for kind in ("images", "labels")}
            others = grouped(
                Stray(name, TOP, "no array of MedMNIST") for name in archive.namelist() if name not in known
            )
            for split in SPLIT_NAMES:
                if f"{split}_images.npy" not in archive.namelist():
                    continue
                count = _image_shape(archive, split, path)[0]
                labels = _labels(archive, split, path)
                if len(labels) != count:
                    raise UserError(f"{path} has {count:,} images but {len(labels):,} labels in {split}")
                entries.extend(
                    Entry(f"{split}/{CLASS_NAMES[label]}/{row:05d}.png", split, int(label), f"{split} {row}")
                    for row, label in enumerate(labels)
                )
        if not entries:
            raise UserError(f"{path} is not a MedMNIST file: it has no array train_images")
        notes = (*_notes_on_counts(entries, path), NO_NAMES)
        require_every_class(entries, source=str(path))
        self.listing = Listing(by_order(entries), others, notes, phantom=False, stamp=stamp_of_file(path))

    @contextlib.contextmanager
    def opened(self) -> Iterator[NpzReader]:
        """Opens the file for reading; UserError if a checksum in it does not match."""
        with open_archive(self._path) as archive, contextlib.closing(NpzReader(archive, self._path)) as reader:
            # The checksum of an array shows only at its end, after damaged rows would have been taken for good.
            try:
                damaged = archive.testzip()
            except DAMAGED as error:
                raise UserError(f"{self._path} is damaged ({error}): fetch it again") from error
            if damaged:
                raise UserError(f"{self._path} is damaged ({damaged} has another checksum): fetch it again")
            yield reader


class NpzReader:
    """Reads rows of the image arrays; fast as long as rows of a split are asked for in ascending order."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path
        self._lock = threading.Lock()
        self._split, self._next = "", 0
        self._stream: zipfile.ZipExtFile | None = None
        self._side = (0, 0)

    def read(self, entry: Entry) -> bytes:
        """Returns one image, encoded as PNG; UserError if the array is damaged."""
        split, row = entry.place.split()
        with self._lock:
            pixels = self._pixels(split, int(row), entry.file)
        return cv2.imencode(".png", pixels)[1].tobytes()

    def close(self) -> None:
        """Closes the stream that is open."""
        if self._stream is not None:
            self._stream.close()

    def _pixels(self, split: str, row: int, name: str) -> np.ndarray:
        """Returns uint8 [H, W] of one row, moving forward in the stream where that is possible."""
        try:
            if split != self._split or row < self._next:
                self.close()
                shape, self._stream = _image_stream(self._archive, split, self._path)
                self._split, self._next, self._side = split, 0, shape[1:3]
            size = self._side[0] * self._side[1]
            while self._next <= row:
                data = self._stream.read(size)
                self._next += 1
        except DAMAGED as error:
            raise UserError(f"{name} cannot be read from the array ({error})") from error
        if len(data) != size:
            raise UserError(f"{name} cannot be read from the array (it ends early)")
        return np.frombuffer(data, np.uint8).reshape(self._side)


def _require_not_named_otherwise(path: Path) -> None:
    """Raises UserError if the file has the name of another set of MedMNIST, whose labels mean something else."""
    for name in _NAME.findall(path.stem.lower()):
        if not name.endswith((OURS, "medmnist")):
            raise UserError(OTHER_SET.format(path=path, has="has the name of", name=name))


def _notes_on_counts(entries: Sequence[Entry], path: Path) -> list[str]:
    """Returns a sentence if these are not the counts of PneumoniaMNIST; UserError if they are those of another set."""
    counts = Counter(entry.split for entry in entries)
    found = tuple(counts[split] for split in SPLIT_NAMES)
    name = next((name for name, published in COUNTS.items() if published == found), None)
    if name not in (None, OURS):
        raise UserError(OTHER_SET.format(path=path, has="has as many images in every split as", name=name))
    published = "{:,}, {:,} and {:,}".format(*COUNTS[OURS])
    return [] if name else [NOT_SAID.format(published=published)]


def _image_stream(archive: zipfile.ZipFile, split: str, path: Path) -> tuple[tuple[int, ...], zipfile.ZipExtFile]:
    """Returns the shape of the image array of `split` and its stream, standing at the first pixel."""
    stream = archive.open(f"{split}_images.npy")
    shape, fortran, dtype = _header(stream)
    grey = dtype == np.uint8 and not fortran and (len(shape) == 3 or (len(shape) == 4 and shape[3] == 1))
    if not grey or shape[1] * shape[2] > MAX_PIXELS or 0 in shape[1:3]:
        stream.close()
        raise UserError(f"{path} does not hold grey 8-bit images in {split}: found {dtype} of shape {shape}")
    return shape, stream


def _image_shape(archive: zipfile.ZipFile, split: str, path: Path) -> tuple[int, ...]:
    """Returns the shape of the image array of `split`, having checked it."""
    member = archive.getinfo(f"{split}_images.npy")
    try:
        shape, stream = _image_stream(archive, split, path)
    except DAMAGED as error:
        raise UserError(f"{path} is damaged: {member.filename} cannot be read ({error})") from error
    stream.close()
    return shape


def _labels(archive: zipfile.ZipFile, split: str, path: Path) -> np.ndarray:
    """Returns the labels of `split`, int [N]."""
    name = f"{split}_labels.npy"
    try:
        if archive.getinfo(name).file_size > MAX_LABEL_BYTES:
            raise UserError(f"{name} in {path} is larger than {MAX_LABEL_BYTES // 2**20} MiB")
        with archive.open(name) as stream:
            shape, _, dtype = _header(stream)
            if dtype.kind not in "iu":
                raise UserError(_OTHER_LABELS.format(path=path, split=split))
            # What the header says of the size is believed no further than the data go.
            data = stream.read(MAX_LABEL_BYTES + 1)
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError("it has another size than its header says")
        labels = np.frombuffer(data, dtype)
    except KeyError as error:
        raise UserError(f"{path} has images but no labels for {split}") from error
    except DAMAGED as error:
        raise UserError(f"{path} is damaged: {name} cannot be read ({error})") from error
    if not np.isin(labels, range(len(CLASS_NAMES))).all():
        raise UserError(_OTHER_LABELS.format(path=path, split=split))
    return labels


def _header(stream: zipfile.ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns (shape, Fortran order, dtype) of an .npy stream; ValueError if it is none."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"array format {version}")
    try:
        return readers[version](stream)
    except (tokenize.TokenError, MemoryError, RecursionError) as error:
        # A header is a Python literal, and its parser meets nonsense in its own ways.
        raise ValueError("its header is no array's") from error
