"""Which cases of a split are worth looking at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from cxr_jax.evaluation.cases import calls_of, confidence_of

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
"""The four outcomes: whether PNEUMONIA, or a finding, is called, and whether it is there."""


class Calls(NamedTuple):
    """N calls of PNEUMONIA, of findings, or of exclusive classes, each of one image."""

    file: tuple[str, ...]
    called: np.ndarray  # bool [N]; of several exclusive classes int [N], which one
    ill: np.ndarray  # the same of what is there
    confidence: np.ndarray  # float64 [N] in 0..1, see `confidence_of`

    @classmethod
    def at(cls, file: Sequence[str], probability: np.ndarray, ill: np.ndarray, threshold: float) -> Calls:
        """Returns the calls of `probability` [N] at one threshold."""
        return cls(tuple(file), calls_of(probability, threshold), ill, confidence_of(probability, threshold))

    @classmethod
    def together(cls, parts: Sequence[Calls]) -> Calls:
        """Returns the calls of several parts, one after the other."""
        files = tuple(file for part in parts for file in part.file)
        columns = zip(*(part[1:] for part in parts), strict=True)
        return cls(files, *(np.concatenate(column) for column in columns))


class Selection(NamedTuple):
    """Rows of a table of calls, the most telling first."""

    rows: np.ndarray  # int [n], at most as many as asked for
    errors: int  # calls of the whole table that are wrong; with 0 of them the rows are the least certain cases


class Outcome(NamedTuple):
    """Cases of one outcome."""

    name: str  # one of OUTCOMES
    rows: np.ndarray  # int [n], chosen by the rule, at most as many as asked for
    total: int  # cases of this outcome in the whole table


def select_worst(calls: Calls, count: int, rule: Rule = "confident") -> Selection:
    """Returns `count` wrong calls chosen by `rule`; without errors, the least certain calls.

    Equal confidence is ordered by file name, so that the choice does not depend on the order of the table.
    """
    wrong = np.flatnonzero(calls.called != calls.ill)
    if len(wrong):
        return Selection(_chosen(calls, wrong, rule)[:count], len(wrong))
    return Selection(_chosen(calls, np.arange(len(calls.file)), "uncertain")[:count], 0)


def select_outcomes(calls: Calls, each: int, rule: Rule = "confident") -> tuple[Outcome, ...]:
    """Returns up to `each` true and false positives and negatives chosen by `rule`; an outcome may have no case.

    Equal confidence is ordered by file name, as in `select_worst`.
    """
    outcomes = []
    for name, (is_called, is_ill) in OUTCOMES.items():
        rows = np.flatnonzero((calls.called == is_called) & (calls.ill == is_ill))
        outcomes.append(Outcome(name, _chosen(calls, rows, rule)[:each], len(rows)))
    return tuple(outcomes)


def _chosen(calls: Calls, rows: np.ndarray, rule: Rule) -> np.ndarray:
    """Returns `rows` in the order in which `rule` prefers them."""
    rows = rows[np.argsort(np.array([calls.file[row] for row in rows], dtype=str), kind="stable")]
    if rule == "random":
        return np.random.default_rng(0).permutation(rows)
    chosen = calls.confidence[rows]
    if rule == "typical" and len(rows):
        chosen = np.abs(chosen - np.median(chosen))
    return rows[np.argsort(-chosen if rule == "confident" else chosen, kind="stable")]
