"""The sets of Shenzhen and Montgomery as they are published: the class stands at the end of the name of a file.

Jaeger et al., Quantitative Imaging in Medicine and Surgery 2014. `CHNCXR_0001_0.png` is of Shenzhen and normal,
`MCUCXR_0001_1.png` of Montgomery County and shows manifestations of tuberculosis. Texts called like the images tell sex
and age. Both sets in one folder are read as one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cxr_jax.data.sources.folder import files_below
from cxr_jax.data.sources.labels_table import TabledImages, listing_of
from cxr_jax.data.sources.leftovers import MASKS
from cxr_jax.data.sources.passed_over import Stray
from cxr_jax.data.sources.table_rows import Columns, Row, Rows
from cxr_jax.vocabulary import EXCLUSIVE

TUBERCULOSIS_CLASSES = ("normal", "tuberculosis")

SETS = {"CHNCXR": "shenzhen", "MCUCXR": "montgomery"}

_IMAGE = re.compile(r"(CHNCXR|MCUCXR)_\d{4}_([01])\.png", re.IGNORECASE)
_AGE = re.compile(r"(?:age:?\s*0*|\b)(\d{1,3})\s*(?:y|yrs?|years?)\b", re.IGNORECASE)
_SEX = re.compile(r"(?:sex:?\s*|\b)(female|male|f|m)\b", re.IGNORECASE)


def holds_tuberculosis_sets(folder: Path) -> bool:
    """Returns whether images of either set lie in `folder`, in its folder CXR_png, or in that of a folder in it."""
    places = (folder, folder / "CXR_png", *sorted(folder.glob("*/CXR_png")))
    return any(_IMAGE.fullmatch(path.name) for place in places for path in place.glob("*_[01].png"))


class TuberculosisSource(TabledImages):
    """The images of Shenzhen, of Montgomery, or of both."""

    kind = "tuberculosis"

    def __init__(self, folder: Path) -> None:
        """Lists the folder, without reading images; UserError if a class has no image, or a name is there twice."""
        found, _ = files_below(folder)
        named = [place for place in found if _IMAGE.fullmatch(PurePosixPath(place).name)]
        masks = {place for place in named if any("mask" in part.lower() for part in PurePosixPath(place).parts[:-1])}
        texts = {PurePosixPath(place).stem: place for place in found if place.lower().endswith(".txt")}
        rows = [_row(folder, place, texts) for place in named if place not in masks]
        sets = {dict(row.known)["set"] for row in rows}
        super().__init__(
            folder,
            listing_of(
                folder,
                Rows(rows, TUBERCULOSIS_CLASSES),
                Columns(folder, "file", ()),
                EXCLUSIVE,
                self.kind,
                name=sets.pop() if len(sets) == 1 else "tuberculosis",
                tables=tuple(folder / place for place in texts.values()),
                left_out=[Stray(place, str(PurePosixPath(place).parent), MASKS) for place in sorted(masks)],
            ),
        )


def _row(folder: Path, place: str, texts: Mapping[str, str]) -> Row:
    """Returns what the name of an image and the text beside it say."""
    path = PurePosixPath(place)
    match = _IMAGE.fullmatch(path.name)
    text = ""
    if path.stem in texts:
        # without it age and sex are unknown, and nothing else
        with contextlib.suppress(OSError):
            text = (folder / texts[path.stem]).read_text(encoding="utf-8", errors="replace")
    sex, age = _SEX.search(text), _AGE.search(text)
    known = (
        ("set", SETS[match[1].upper()]),
        ("age", str(int(age[1])) if age else ""),
        ("sex", sex[1][0].upper() if sex else ""),
    )
    return Row(0, place, TUBERCULOSIS_CLASSES[int(match[2])], "", "", known)
