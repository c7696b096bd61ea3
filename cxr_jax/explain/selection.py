"""Which cases of a split are worth looking at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cxr_jax.evaluation.cases import calls_of, confidence_of
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import PNEUMONIA


class Selection(NamedTuple):
    """Rows of a predictions table, the most telling first."""

    rows: np.ndarray  # int [n], at most as many as asked for
    errors: int  # calls of the whole table that are wrong; with 0 of them the rows are the least certain cases


def select_worst(predictions: Predictions, threshold: float, count: int) -> Selection:
    """Return the `count` wrong calls that were made with most confidence; without errors, the least certain calls.

    Equal confidence is ordered by file name, so that the choice does not depend on the order of the table.
    """
    confidence = confidence_of(predictions.probability, threshold)
    wrong = calls_of(predictions.probability, threshold) != (predictions.label == PNEUMONIA)
    by_name = np.argsort(np.array(predictions.file), kind="stable")
    if wrong.any():
        order = by_name[np.argsort(-confidence[by_name], kind="stable")]
        return Selection(order[wrong[order]][:count], int(wrong.sum()))
    return Selection(by_name[np.argsort(confidence[by_name], kind="stable")][:count], 0)
