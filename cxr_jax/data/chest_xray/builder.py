"""Radiographs as a TFDS data set in ArrayRecord files, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cxr_jax.data.examples import Example
from cxr_jax.data.findings import finding_labels
from cxr_jax.data.sources import Entry, Reader
from cxr_jax.vocabulary import EXCLUSIVE, FINDINGS, SPLIT_NAMES, SUBTYPE_NAMES, Kind

EXAMPLES_PER_SHARD = 1024

KeyedFeatures = tuple[int, dict[str, Any]]


class ChestXray(tfds.core.ShardBasedBuilder):
    """Encoded radiographs with class, subtype, group, file name and original size, in the order of the table.

    Shard by shard, because a GeneratorBasedBuilder keeps up to 1 GB of examples in memory to sort them, even with
    shuffling disabled. Images are stored as the bytes of the source; read them with `tfds.decode.SkipDecoding`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (a constant that TFDS reads from the class)
    MANUAL_DOWNLOAD_INSTRUCTIONS = None

    def __init__(
        self,
        *,
        reader: Reader,
        entries: Sequence[Entry],
        examples: Sequence[Example],
        classes: tuple[str, ...],
        kind: Kind = EXCLUSIVE,
        data_dir: Path,
        **kwargs: Any,
    ) -> None:
        """Binds the builder to an open source: `entries[i]` is where the image of `examples[i]` is read."""
        self._reader, self._classes, self._kind = reader, classes, kind
        self._rows = list(zip(entries, examples, strict=True))
        super().__init__(data_dir=data_dir, file_format="array_record", **kwargs)

    def _log_download_bytes(self) -> None:
        """Prints nothing: nothing is downloaded, and the caller tells what is done."""

    def _log_download_done(self) -> None:
        """Prints nothing."""

    def _info(self) -> tfds.core.DatasetInfo:
        """Returns the features of an example."""
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(),
                "label": self._label_feature(),
                "subtype": tfds.features.ClassLabel(names=SUBTYPE_NAMES),
                "split": tfds.features.ClassLabel(names=SPLIT_NAMES),
                "group": tfds.features.Text(),
                "file_name": tfds.features.Text(),
                "width": tfds.features.Scalar(np.int32),
                "height": tfds.features.Scalar(np.int32),
            }
        )
        return self.dataset_info_from_configs(features=features, disable_shuffling=True)

    def _label_feature(self) -> tfds.features.FeatureConnector:
        """Returns what a label is: the index of a class, or float32 [K], 1, 0 or NaN for each finding."""
        if self._kind == FINDINGS:
            return tfds.features.Tensor(shape=(len(self._classes),), dtype=np.float32)
        return tfds.features.ClassLabel(names=self._classes)

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[KeyedFeatures]]]]:
        """Returns for each split the functions that generate its shards."""
        del dl_manager
        shards: dict[str, list[Callable[[], Iterator[KeyedFeatures]]]] = {}
        for split in SPLIT_NAMES:
            rows = [row for row, (_, example) in enumerate(self._rows) if example.split == split]
            starts = range(0, len(rows), EXAMPLES_PER_SHARD)
            if rows:
                shards[split] = [partial(self._generate, rows[start : start + EXAMPLES_PER_SHARD]) for start in starts]
        return shards

    def _generate(self, rows: Sequence[int]) -> Iterator[KeyedFeatures]:
        """Yields (row in the table, features) of one shard."""
        for row in rows:
            entry, example = self._rows[row]
            yield (
                row,
                {
                    "image": _LazyFile(self._reader, entry),
                    "label": finding_labels([example.label], self._classes)[0]
                    if self._kind == FINDINGS
                    else example.label,
                    "subtype": example.subtype,
                    "split": example.split,
                    "group": example.group,
                    "file_name": example.file,
                    "width": example.width,
                    "height": example.height,
                },
            )


class _LazyFile:
    """A file object that reads its image when TFDS asks, because TFDS holds on to the features of a whole shard."""

    def __init__(self, reader: Reader, entry: Entry) -> None:
        self._reader, self._entry = reader, entry

    def read(self) -> bytes:
        """Returns the encoded image."""
        return self._reader.read(self._entry)
