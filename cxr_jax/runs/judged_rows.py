"""The rows of a predictions table that are judged: those of one split, which must hold two classes or more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.runs.class_predictions import classes_of_table, read_class_predictions
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.clustered import Rows
from cxr_jax.runs.merged_classes import Merged, check_merged, merge_classes, merge_to_two
from cxr_jax.runs.predictions import Predictions, SplitRows, read_predictions, rows_of
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS


@dataclass(frozen=True)
class JudgedRows(Generic[Rows]):
    """What is judged of the table at `path`, and sentences on what is left out of it."""

    path: str | Path
    predictions: Rows
    sentences: tuple[str, ...]

    def tell(self, say: Callable[[str], object]) -> None:
        """Says what is left out, a line each."""
        for sentence in self.sentences:
            say(f"{self.path}: {sentence}")


def read_two_classes(path: str | Path, split: str, merged: Merged) -> JudgedRows[Predictions]:
    """Returns the rows of `split` of a table of NORMAL and PNEUMONIA, or of one whose classes are `merged` to these.

    Raises:
        UserError: the table is wrong, cannot be merged, or its rows are of one class, on which nothing can be judged.
    """
    if merged:
        former = _former(path, split, merged)
        new = merge_to_two(check_merged(path, former.predictions, merged), merged)
        return JudgedRows(path, new, _sentences(former, len(new)))
    rows = rows_of(split, read_predictions(path, require_file=False), path)
    present = np.unique(rows.predictions.label)
    if len(present) < len(CLASS_NAMES):
        raise UserError(
            f"{path} has images of {CLASS_NAMES[present[0]]} only: judging needs both {' and '.join(CLASS_NAMES)}"
        )
    return JudgedRows(path, rows.predictions, _sentences(rows, len(rows.predictions)))


def read_other_classes(path: str | Path, split: str, merged: Merged) -> JudgedRows[ClassProbabilities]:
    """Returns the rows of `split` of a table of other classes, as they are or `merged`; UserError as above."""
    if merged:
        former = _former(path, split, merged)
        new = merge_classes(check_merged(path, former.predictions, merged), merged)
        return JudgedRows(path, new, _sentences(former, len(new)))
    rows = rows_of(split, read_class_predictions(path, require_file=False), path)
    predictions = rows.predictions
    if predictions.KIND == FINDINGS:
        known = (predictions.asked(name)[1] for name in predictions.classes)
        if all(len(np.unique(labels)) < 2 for labels in known):
            raise UserError(f"{path} has no finding that is both present and absent: judging needs one")
    elif len(present := np.unique(predictions.label)) < 2:
        raise UserError(f"{path} has images of {predictions.classes[present[0]]} only: judging needs two classes")
    return JudgedRows(path, predictions, _sentences(rows, len(predictions)))


def _former(path: str | Path, split: str, merged: Merged) -> SplitRows[ClassProbabilities]:
    """Returns the rows of a table before their classes are merged; UserError for one of NORMAL and PNEUMONIA."""
    if not classes_of_table(path):
        names = " and ".join(CLASS_NAMES)
        raise UserError(f"{path} is of {names} already, of which --merge {' '.join(merged)} can make nothing else")
    return rows_of(split, read_class_predictions(path, require_file=False), path)


def _sentences(rows: SplitRows[Rows], judged: int) -> tuple[str, ...]:
    """Returns what a reader must know of rows of other splits, and of images of classes that are not merged."""
    others = len(rows.predictions) - judged
    left_out = f"{others:,} images of classes that are not named are left out." if others else None
    return tuple(sentence for sentence in (rows.sentence, left_out) if sentence is not None)
