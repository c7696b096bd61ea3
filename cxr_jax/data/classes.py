"""Subtypes as classes of their own."""

from __future__ import annotations

from dataclasses import replace

from cxr_jax.data.inspection import Inspection
from cxr_jax.data.sources import LeftOut
from cxr_jax.data.sources.source import by_order
from cxr_jax.vocabulary import SUBTYPE_NAMES

SUBTYPE_CLASSES = SUBTYPE_NAMES[:-1]
"""The subtypes that are classes of their own, in the order of the labels: all but `unknown`."""

NO_SUBTYPE = "the file name tells no subtype"


def classed_by_subtype(inspection: Inspection) -> Inspection:
    """Returns what was found in a source with the subtypes as classes; images without one are left out, and listed.

    Entries keep their files, and their labels become indices into SUBTYPE_CLASSES.
    """
    rows = list(zip(inspection.entries, inspection.examples, strict=True))
    left_out = [LeftOut(example.file, NO_SUBTYPE) for _, example in rows if example.subtype not in SUBTYPE_CLASSES]
    kept = {
        entry.file: (
            replace(entry, label=SUBTYPE_CLASSES.index(example.subtype)),
            replace(example, label=example.subtype),
        )
        for entry, example in rows
        if example.subtype in SUBTYPE_CLASSES
    }
    entries = by_order(entry for entry, _ in kept.values())
    examples = tuple(kept[entry.file][1] for entry in entries)
    return replace(inspection, entries=entries, examples=examples, left_out=(*inspection.left_out, *left_out))
