"""What the file names of the two releases of the Guangzhou radiographs say.

Kaggle release: `person{P}_{bacteria|virus}_{I}.jpeg` (one file has a further number,
`person447_virus_921_1.jpeg`), `IM-{P}-{N}.jpeg` and `NORMAL2-IM-{P}-{N}.jpeg`, the last two sometimes with a further
`-{N}`. Mendeley release: `{NORMAL|BACTERIA|VIRUS}-{id}-{n}.jpeg`.

Bacteria and virus number their persons separately, and `NORMAL2-IM-0095` is not `IM-0095`: a key without subtype or
prefix would join strangers. The group is the best stand-in for a patient that the names allow, not a verified
patient.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cxr_jax.vocabulary import NORMAL, PNEUMONIA

_SUFFIX = r"\.(?:jpe?g|png)"
_PNEUMONIA = re.compile(rf"person(\d+)_(bacteria|virus)_\d+(?:_\d+)?{_SUFFIX}", re.IGNORECASE)
_NORMAL = re.compile(rf"((?:NORMAL2-)?IM)-(\d+)(?:-\d+)+{_SUFFIX}", re.IGNORECASE)
_MENDELEY = re.compile(rf"(NORMAL|BACTERIA|VIRUS)-(\d+)-\d+{_SUFFIX}", re.IGNORECASE)


@dataclass(frozen=True)
class FileName:
    """What one file name says."""

    label: int  # index into CLASS_NAMES
    subtype: str  # one of SUBTYPE_NAMES
    group: str  # equal for two images that the release gives to one person


def parse_file_name(name: str) -> FileName | None:
    """Returns what `name` (without folders) says, or None if it follows neither grammar."""
    if match := _PNEUMONIA.fullmatch(name):
        person, subtype = match[1], match[2].lower()
        return FileName(PNEUMONIA, subtype, f"{subtype}-person{person}")
    if match := _NORMAL.fullmatch(name):
        return FileName(NORMAL, "normal", f"{match[1].upper()}-{match[2]}")
    if match := _MENDELEY.fullmatch(name):
        subtype = match[1].lower()
        # Ids of this release are not numbered by class: the same id in two classes is the same person.
        return FileName(NORMAL if subtype == "normal" else PNEUMONIA, subtype, f"id-{match[2]}")
    return None


def natural_key(path: str) -> tuple[tuple[str | int, ...], str]:
    """Returns a sort key that orders the numbers in `path` by value: person2 before person10."""
    parts = re.split(r"(\d+)", path)
    # Text and numbers alternate, so that two keys never compare one with the other.
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), path
