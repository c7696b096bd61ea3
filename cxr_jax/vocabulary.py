"""The words that every room shares: classes, subtypes, splits and the columns of a predictions table.

Each of these facts stands here and nowhere else.
"""

from typing import Literal

CLASS_NAMES = ("NORMAL", "PNEUMONIA")
"""The two classes unless data say otherwise; a class's label is its index, so the positive class is 1."""

NORMAL, PNEUMONIA = 0, 1

Kind = Literal["exclusive", "findings"]
"""Of the classes: an image has exactly one of them, or any number of findings that occur together."""

EXCLUSIVE: Kind = "exclusive"
FINDINGS: Kind = "findings"

NO_FINDING = "No Finding"
"""How it is written that an image shows none of the findings, which is no finding itself."""

SUBTYPE_NAMES = ("normal", "bacteria", "virus", "unknown")
"""Cause of the pneumonia as far as the source says; `unknown` for pneumonia without a stated cause."""

SPLIT_NAMES = ("train", "val", "test")

LOGIT_COLUMNS = tuple(f"logit_{name}" for name in CLASS_NAMES)

PREDICTION_COLUMNS = ("file", "split", "group", "subtype", "label", *LOGIT_COLUMNS, "probability", "schema_version")
"""Columns of a predictions table; `label` is a class name, `probability` that of PNEUMONIA."""

PNEUMONIA_CHANCE = "P(pneumonia)"
"""How the probability of PNEUMONIA is written beside a picture."""

DISCLAIMER = "Research software. Not a medical device; not for diagnosis or treatment."

SYNTHETIC = "synthetic"
"""Subtype of images that a generator made; they are training images alone, and no radiographs."""

SYNTHETIC_KEYWORD, SYNTHETIC_TEXT = "Synthetic", "not a radiograph"
"""Keyword and text of the PNG chunk that marks such an image."""
