"""What a network gained and forgot by learning on, in sentences."""

from dataclasses import replace

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
MOSTLY, ALIKE = (RANKED + 0.85 * (np.arange(24) == row) for row in (8, 16))
"""One of the twelve normal images lies among the others."""


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (MOSTLY, ALIKE, "neither a gain nor a loss is shown: the ROC-AUC changed by +0.000"),
        (1 - MOSTLY, MOSTLY, "was gained: the ROC-AUC changed by +"),
        (MOSTLY, 1 - MOSTLY, "was lost: the ROC-AUC changed by −"),
        # what ranks all images wrongly, and then all rightly, has no variance
        (1 - RANKED, RANKED, "neither a gain nor a loss is shown, for want of an interval: the ROC-AUC changed by +1"),
    ],
)
def test_a_gain_is_told_where_one_is_shown(before, after, told):
    change = change_between("films", "f", (table(before), None), (table(after), None))
    (sentence,) = told_changes(Changes("origin", change, None))
    assert told in sentence


def test_without_an_interval_nothing_is_claimed():
    def of_one_patient(probability):
        whole = table(probability)
        return replace(
            whole, group=tuple("one" if label == 0 else group for group, label in zip(whole.group, LABEL, strict=True))
        )

    change = change_between("films", "f", (of_one_patient(1 - RANKED), None), (of_one_patient(RANKED), None))
    (sentence,) = told_changes(Changes("origin", change, None))
    assert "neither a gain nor a loss is shown, for want of an interval" in sentence
