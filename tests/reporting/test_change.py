"""What a network gained and forgot by learning on, in sentences."""

import numpy as np
import pytest

from cxr_jax.evaluation.change import Changes, change_between
from cxr_jax.reporting.change import told_changes
from cxr_jax.runs.predictions import Predictions

LABEL = np.arange(24) % 2


def table(probability):
    groups = tuple(str(row // 2) for row in range(24))
    files, subtypes = tuple(f"{row}.png" for row in range(24)), ("normal", "unknown") * 12
    return Predictions(files, ("test",) * 24, groups, subtypes, LABEL, None, probability)


RANKED = 0.1 + 0.8 * LABEL + 0.001 * np.arange(24)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (RANKED, 0.9 * RANKED, "neither a gain nor a loss is shown: the ROC-AUC changed by +0.000"),
        (1 - RANKED, RANKED + np.sin(np.arange(24)) * 0.001, "1.000 was gained"),
        (RANKED, np.roll(RANKED, 9), "was lost"),
    ],
)
def test_a_gain_is_told_where_one_is_shown(before, after, told):
    change = change_between("films", "f", (table(before), None), (table(after), None))
    (sentence,) = told_changes(Changes("origin", change, None))
    assert told in sentence
