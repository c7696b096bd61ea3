"""Prepared data on disk: where it is kept and how it is opened."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cxr_jax.data.card import OF_FINDINGS, OF_OTHER_CLASSES, SCHEMA_VERSION
from cxr_jax.data.examples import Example, groups_fingerprint, read_examples
from cxr_jax.data.mask_record import MaskRecord, mask_record
from cxr_jax.data.splits import joined_by_content
from cxr_jax.errors import UserError
from cxr_jax.images.regions import WHOLE
from cxr_jax.runs.files import at_home
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, Kind

ROOT_VARIABLE = "CXR_PREPARED_DIR"
"""Environment variable that names the folder of all prepared data sets."""

CARD, TABLE = "data_card.json", "examples.csv"
"""Files of the prepared data."""

AGAIN = "run `cxr-jax prepare SOURCE --replace`"
"""What to do about damaged data: without --replace a known source would not be read again."""

RECORDS = "records"
"""Folder of the TFDS data set, inside that of the prepared data."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def prepared_root() -> Path:
    """Returns the folder that holds prepared data sets: $CXR_PREPARED_DIR, or ~/.cache/cxr_jax/prepared.

    Raises:
        UserError: there is no home folder to find it in, or its path holds bytes that are no text.
    """
    chosen = os.environ.get(ROOT_VARIABLE) or Path("~", ".cache", "cxr_jax", "prepared")
    root = at_home(chosen, instead=f"set {ROOT_VARIABLE} to the folder in which prepared data are to be kept")
    try:
        str(root.absolute()).encode()
    except UnicodeEncodeError:
        # the library that writes records takes paths as text alone
        raise UserError(
            f"no prepared data can be kept in {root.absolute()}, whose path holds bytes that are no UTF-8 text: set "
            f"{ROOT_VARIABLE} to another folder"
        ) from None
    return root


def folder_of(name: str) -> Path:
    """Returns the folder of the prepared data set called `name`, which need not exist; UserError if it is no name."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name prepared data: use letters, digits, dots, dashes and underscores")
    return prepared_root() / name


@dataclass(frozen=True)
class PreparedData:
    """One prepared data set.

    Its folder holds `data_card.json`, `examples.csv`, `records/` (TFDS, ArrayRecord) and `decoded/` (caches).
    """

    path: Path

    @classmethod
    def open(cls, name_or_path: str | Path) -> PreparedData:
        """Returns the data set prepared under a name, or kept in a folder.

        Raises:
            UserError: there is none, or it was written by another version.
        """
        text = str(name_or_path)
        for path in _places(text):
            if (path / CARD).is_file():
                prepared = cls(path)
                if prepared.card.get("schema_version") not in (SCHEMA_VERSION, OF_OTHER_CLASSES, OF_FINDINGS):
                    raise UserError(f"{path} was prepared by another version: {AGAIN}")
                return prepared
        known = ", ".join(sorted(card.parent.name for card in prepared_root().glob(f"*/{CARD}"))) or "none yet"
        raise UserError(
            f"no prepared data called {text!r} in {prepared_root()} (there: {known}): "
            "run `cxr-jax prepare SOURCE` first"
        )

    @cached_property
    def card(self) -> dict[str, Any]:
        """The data card; UserError if it cannot be read."""
        try:
            card = json.loads((self.path / CARD).read_text(encoding="utf-8"))
            if not isinstance(card, dict):
                raise ValueError("not an object")
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / CARD} cannot be read: {AGAIN}") from error
        return card

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The table, one example a row, in the order of the records; UserError if it cannot be read.

        Groups with identical files are one, in data that an earlier version prepared too.
        """
        return joined_by_content(self.stored_examples())[0]

    def stored_examples(self) -> tuple[Example, ...]:
        """Returns the table as it is stored; UserError if it cannot be read."""
        return read_examples(self.path / TABLE, advice=AGAIN)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels; data of earlier versions have the two usual ones."""
        return tuple(self.card.get("classes", CLASS_NAMES))

    @property
    def kind(self) -> Kind:
        """Of the classes; in data of earlier versions they exclude each other."""
        return self.card.get("kind", EXCLUSIVE)

    @property
    def fingerprint(self) -> str:
        """sha256 of the content, hexadecimal."""
        return self.card["fingerprint"]

    @cached_property
    def groups_sha256(self) -> str:
        """sha256 of which image is of which group, hexadecimal; the fingerprint does not tell it."""
        return groups_fingerprint(self.examples)

    @cached_property
    def test_images(self) -> frozenset[str]:
        """The test images by content: the sha256 of each as it is stored. Classes, names and order do not enter."""
        return frozenset(example.sha256 for example in self.examples if example.split == "test")

    @property
    def masks(self) -> MaskRecord | None:
        """What the card says of lung masks; None if there are none; UserError if that is damaged."""
        return mask_record(self.card)

    def require_masks(self, wanted: str) -> MaskRecord:
        """Returns the record of the lung masks; UserError if there are none, which `wanted` needs."""
        if self.masks is None:
            raise UserError(
                f"{wanted} needs lung masks, and {self.path} has none: `cxr-jax prepare --name {self.path.name} "
                "--masks FOLDER` adds them"
            )
        return self.masks

    @property
    def records(self) -> Path:
        """Folder of the TFDS data set."""
        return self.path / RECORDS

    @property
    def decoded(self) -> Path:
        """Folder of the decoded caches."""
        return self.path / "decoded"


def readable_data() -> Iterator[PreparedData]:
    """Yields every prepared data set of this machine whose card and table can be read."""
    for card in sorted(prepared_root().glob(f"*/{CARD}")):
        with contextlib.suppress(UserError):
            prepared = PreparedData.open(card.parent.name)
            prepared.stored_examples()
            yield prepared


def _places(name_or_path: str) -> Iterator[Path]:
    """Yields where the data may be that a config calls so: under the name, then in the folder."""
    if _NAME.fullmatch(name_or_path):
        yield folder_of(name_or_path)
    yield at_home(name_or_path)


def from_any_folder(name_or_path: str) -> str:
    """Returns what means the same data wherever a command is run: the name, or the absolute path of their folder."""
    found = next((path for path in _places(name_or_path) if (path / CARD).is_file()), None)
    if found is None or (_NAME.fullmatch(name_or_path) and found == folder_of(name_or_path)):
        return name_or_path
    return str(found.resolve())


def open_data_of_run(run: RunFolder) -> PreparedData:
    """Returns the prepared data that a run was trained on.

    Raises:
        UserError: it is not there, or what lies there now is something else; its groups count, and the lung masks where
            the run saw what they told.
    """
    name = run.configured("data", "dataset")
    prepared = PreparedData.open(name)
    if read_json(run.environment).get("data_fingerprint") != prepared.fingerprint:
        raise UserError(
            f"the prepared data {name} is not what {run.path} was trained on; prepare the same source again"
        )
    require_groups_of_run(run, prepared)
    require_masks_of_run(run, prepared)
    replayed_of_run(run)
    return prepared


def require_groups_of_run(run: RunFolder, prepared: PreparedData) -> None:
    """Raises UserError if the images are of other groups than when the run began, as far as it has kept that.

    Its validation images would be others: images that it learned from might be among them. A run whose validation
    images are those of the source is let pass.
    """
    _require_groups(run, prepared, read_json(run.data_card) if run.data_card.is_file() else {})


def _require_groups(run: RunFolder, prepared: PreparedData, kept: dict[str, Any]) -> None:
    """Raises UserError as `require_groups_of_run`; `kept` is what the run's card says of these data."""
    told = kept.get("groups_sha256")
    if told and told != prepared.groups_sha256 and run.configured("data", "validation") != "official":
        raise UserError(
            f"the images of {prepared.card['name']} are in other groups than when {run.path} began, so that others "
            "would be validation images: prepare the same source with the groups of then, or train a new run"
        )


def data_of_run_if_here(run: RunFolder) -> PreparedData | None:
    """Returns the prepared data that a run was trained on; None where they are not on this machine."""
    try:
        return open_data_of_run(run)
    except UserError:
        return None


def data_if_here(name_or_path: str, fingerprint: str) -> PreparedData | None:
    """Returns the data set prepared under a name, or kept in a folder; None if it is another one by its fingerprint."""
    with contextlib.suppress(UserError):
        prepared = PreparedData.open(name_or_path)
        if prepared.fingerprint == fingerprint:
            return prepared
    return None


def replayed_of_run(run: RunFolder) -> PreparedData | None:
    """Returns the data that a run mixed in; None if there were none.

    Raises:
        UserError: they are not there, or what lies there now is something else; its groups count.
    """
    replayed = read_json(run.data_card).get("replay") if run.data_card.is_file() else None
    if replayed is None:
        return None
    name = run.configured("data", "replay")["dataset"]
    prepared = PreparedData.open(name)
    if prepared.fingerprint != replayed["fingerprint"]:
        raise UserError(
            f"the prepared data {name} is not what {run.path} mixed in for replay; prepare the same source again"
        )
    _require_groups(run, prepared, replayed)
    return prepared


def require_masks_of_run(run: RunFolder, prepared: PreparedData) -> None:
    """Raises UserError if what a run sees of images was told by lung masks, and these are not what they were."""
    data = run.read_config()["data"]
    if data.get("region", WHOLE) == WHOLE and data.get("crop", "none") == "none":
        return
    told = mask_record(read_json(run.data_card))
    if told is None or prepared.require_masks(f"{run.path}").fingerprint != told.fingerprint:
        raise UserError(f"the lung masks in {prepared.path} are not those that {run.path} was trained with")
