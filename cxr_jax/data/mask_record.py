"""What the data card says of the lung masks that lie beside prepared radiographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.runs.records import from_json

ENTRY = "masks"
"""Name of the record in the data card."""

LISTED = 20
"""How many masks without a radiograph the card names; it counts all."""


@dataclass(frozen=True)
class MaskRecord:
    """The masks of one prepared data set.

    Attributes:
        source: folder that they came from.
        file: that holds them now, beside the data card.
        fingerprint: sha256 of which radiographs have one and of its pixels, hexadecimal.
        images: how many radiographs have one.
        counts: the same by split and class.
        absent: radiographs without one.
        unmatched: how many masks of the source belong to no radiograph.
        unmatched_files: the first of them.
    """

    source: str
    file: str
    fingerprint: str
    images: int
    counts: dict[str, dict[str, int]]
    absent: tuple[str, ...]
    unmatched: int
    unmatched_files: tuple[str, ...]


def mask_name(row: int) -> str:
    """Returns how the mask of a row of the table is called in the file that holds all."""
    return f"{row:06d}.png"


def mask_record(card: dict[str, Any]) -> MaskRecord | None:
    """Returns what a data card says of masks; None if there are none.

    Raises:
        UserError: the entry is damaged.
    """
    if ENTRY not in card:
        return None
    try:
        return from_json(MaskRecord, card[ENTRY], ENTRY)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the data card is damaged ({error}): run `cxr-jax prepare` with --masks again") from error
