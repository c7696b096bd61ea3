"""Lung masks of prepared data that others take the place of: kept with the images that are in both."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace

from cxr_jax.data.mask_record import ENTRY, mask_name
from cxr_jax.data.masks.preparation import recorded, store_masks
from cxr_jax.data.prepared import CARD, PreparedData
from cxr_jax.errors import UserError
from cxr_jax.runs import files
from cxr_jax.runs.records import to_json


@dataclass(frozen=True)
class LostMasks:
    """Masks of earlier data that no image of the new data has.

    Attributes:
        count: how many there are.
        source: folder that they came from.
    """

    count: int
    source: str


def carry_masks(old: PreparedData, new: PreparedData) -> LostMasks | None:
    """Stores the masks of `old` beside `new`, each with the images of the same content.

    Returns what is left over; None where nothing is, as `old` has no masks, or they cannot be read.

    Raises:
        UserError: they cannot be stored.
    """
    try:
        record = old.masks
        masks = {} if record is None else _masks_by_content(old, record.file)
    except UserError:
        return None
    if not masks:
        return None
    having = [(row, example) for row, example in enumerate(new.examples) if example.sha256 in masks]
    if having:
        encoded = [masks[example.sha256] for _, example in having]
        kept = recorded(record.source, new, [example for _, example in having], encoded, record.unmatched_files)
        kept = replace(kept, unmatched=record.unmatched)
        store_masks(new.path / kept.file, [row for row, _ in having], encoded)
        files.write_json(new.path / CARD, {**new.card, ENTRY: to_json(kept)})
    lost = masks.keys() - {example.sha256 for _, example in having}
    return LostMasks(len(lost), record.source) if lost else None


def _masks_by_content(old: PreparedData, file: str) -> dict[str, bytes]:
    """Returns the masks, PNG, by the sha256 of their images; UserError if they cannot be read."""
    try:
        with zipfile.ZipFile(old.path / file) as archive:
            there = set(archive.namelist())
            rows = ((example, mask_name(row)) for row, example in enumerate(old.examples))
            return {example.sha256: archive.read(name) for example, name in rows if name in there}
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{old.path / file} cannot be read") from error
