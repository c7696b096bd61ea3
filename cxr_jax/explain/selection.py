"""Which cases of a split are worth looking at."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from cxr_jax.evaluation.cases import calls_of, confidence_of
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import PNEUMONIA

Rule = Literal["confident", "typical", "uncertain", "random"]
"""How cases are chosen among those that answer a question.

`confident` takes those furthest from the threshold, `uncertain` those nearest to it, `typical` those whose confidence
is nearest to the median, `random` draws by lot with a fixed seed.
"""

OUTCOMES = {
    "true positives": (True, True),
    "false positives": (True, False),
    "false negatives": (False, True),
    "true negatives": (False, False),
}
"""The four outcomes: whether PNEUMONIA is called, and whether it is there."""


class Selection(NamedTuple):
    """Rows of a predictions table, the most telling first."""

    rows: np.ndarray  # int [n], at most as many as asked for
    errors: int  # calls of the whole table that are wrong; with 0 of them the rows are the least certain cases


class Outcome(NamedTuple):
    """Cases of one outcome."""

    name: str  # one of OUTCOMES
    rows: np.ndarray  # int [n], chosen by the rule, at most as many as asked for
    total: int  # cases of this outcome in the whole table


def select_worst(predictions: Predictions, threshold: float, count: int, rule: Rule = "confident") -> Selection:
    """Returns `count` wrong calls chosen by `rule`; without errors, the least certain calls.

    Equal confidence is ordered by file name, so that the choice does not depend on the order of the table.
    """
    confidence = confidence_of(predictions.probability, threshold)
    wrong = np.flatnonzero(calls_of(predictions.probability, threshold) != (predictions.label == PNEUMONIA))
    if len(wrong):
        return Selection(_chosen(predictions, confidence, wrong, rule)[:count], len(wrong))
    return Selection(_chosen(predictions, confidence, np.arange(len(predictions)), "uncertain")[:count], 0)


def select_outcomes(
    predictions: Predictions, threshold: float, each: int, rule: Rule = "confident"
) -> tuple[Outcome, ...]:
    """Returns up to `each` true and false positives and negatives chosen by `rule`; an outcome may have no case.

    Equal confidence is ordered by file name, as in `select_worst`.
    """
    confidence = confidence_of(predictions.probability, threshold)
    called, ill = calls_of(predictions.probability, threshold), predictions.label == PNEUMONIA
    outcomes = []
    for name, (is_called, is_ill) in OUTCOMES.items():
        rows = np.flatnonzero((called == is_called) & (ill == is_ill))
        outcomes.append(Outcome(name, _chosen(predictions, confidence, rows, rule)[:each], len(rows)))
    return tuple(outcomes)


def _chosen(predictions: Predictions, confidence: np.ndarray, rows: np.ndarray, rule: Rule) -> np.ndarray:
    """Returns `rows` in the order in which `rule` prefers them."""
    rows = rows[np.argsort(np.array([predictions.file[row] for row in rows], dtype=str), kind="stable")]
    if rule == "random":
        return np.random.default_rng(0).permutation(rows)
    chosen = confidence[rows]
    if rule == "typical" and len(rows):
        chosen = np.abs(chosen - np.median(chosen))
    return rows[np.argsort(-chosen if rule == "confident" else chosen, kind="stable")]
