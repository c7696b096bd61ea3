import numpy as np
import pytest

from cxr_jax.evaluation.operating_point import choose_operating_point
from tests.evaluation.judged_tables import made_up

# 43 patients of DeLong, DeLong & Clarke-Pearson 1988 (albumin, total protein, K-G score, outcome), as printed in the
# SAS/STAT user's guide, "Comparing Receiver Operating Characteristic Curves".
OVARIAN = """
3.0 5.8 10 0   3.2 6.3  5 1   3.9 6.8  3 1   2.8 4.8  6 0   3.2 5.8  3 1   0.9 4.0  5 0   2.5 5.7  8 0   1.6 5.6  5 1
3.8 5.7  5 1   3.7 6.7  6 1   3.2 5.4  4 1   3.8 6.6  6 1   4.1 6.6  5 1   3.6 5.7  5 1   4.3 7.0  4 1   3.6 6.7  4 0
2.3 4.4  6 1   4.2 7.6  4 0   4.0 6.6  6 0   3.5 5.8  6 1   3.8 6.8  7 1   3.0 4.7  8 0   4.5 7.4  5 1   3.7 7.4  5 1
3.1 6.6  6 1   4.1 8.2  6 1   4.3 7.0  5 1   4.3 6.5  4 1   3.2 5.1  5 1   2.6 4.7  6 1   3.3 6.8  6 0   1.7 4.0  7 0
3.7 6.1  5 1   3.3 6.3  7 1   4.2 7.7  6 1   3.5 6.2  5 1   2.9 5.7  9 0   2.1 4.8  7 1   2.8 6.2  8 0   4.0 7.0  7 1
3.3 5.7  6 1   3.7 6.9  5 1   3.6 6.6  5 1
"""


@pytest.fixture(scope="session")
def ovarian():
    """Labels [43] and the scores [3, 43] of albumin, K-G score and total protein, higher for a good outcome."""
    table = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    return table[:, 3].astype(int), np.stack([table[:, 0], 10 - table[:, 2], table[:, 1]])


@pytest.fixture(scope="session")
def validation():
    """200 predictions of validation, in groups."""
    return made_up(60, 140, split="val", groups=60, seed=1, difference=3.0)


@pytest.fixture(scope="session")
def test_split():
    """240 predictions of test, which tell the classes apart less well."""
    return made_up(90, 150, split="test", groups=70, seed=2)


@pytest.fixture(scope="session")
def point(validation):
    """The operating point of a sensitivity of 95 % on validation."""
    return choose_operating_point(validation, rule="sensitivity", target_sensitivity=0.95)
