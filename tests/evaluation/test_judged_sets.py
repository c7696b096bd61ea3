import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import SetRule
from cxr_jax.evaluation.judged_sets import Uncertainty, judge_sets, read_uncertainty, write_uncertainty
from cxr_jax.runs.predictions import Predictions

RULE = SetRule(0.05, ("NORMAL", "PNEUMONIA"), (0.6, 0.3))
"""NORMAL is possible up to 0.4, PNEUMONIA from 0.3 on: both are from 0.3 to 0.4."""


def table(*rows, group=None):
    """Predictions of rows (probability, label, subtype)."""
    probability, label, subtype = zip(*rows, strict=True)
    names = [f"{i}.png" for i in range(len(rows))]
    return Predictions(names, ["test"] * len(rows), group or [""] * len(rows), subtype, label, None, probability)


ROWS = (
    (0.1, 0, "normal"),  # NORMAL alone, rightly
    (0.35, 0, "normal"),  # both
    (0.9, 0, "normal"),  # PNEUMONIA alone, wrongly
    (0.45, 1, "bacteria"),  # PNEUMONIA alone, but called NORMAL at 0.5
    (0.9, 1, "bacteria"),
    (0.1, 1, "virus"),  # NORMAL alone, wrongly
)


def shares(row):
    return row.images, row.covered.value, row.uncertain.value, row.wrong.value


def test_shares_are_counted_on_all_images_on_each_class_and_on_each_subtype():
    judged = judge_sets(RULE, table(*ROWS), 0.5)
    assert [row.name for row in judged.rows] == ["all", "NORMAL", "PNEUMONIA", "bacteria", "virus"]
    assert shares(judged.of("all")) == (6, 4 / 6, 2 / 6, 2 / 6)
    assert shares(judged.of("NORMAL")) == (3, 2 / 3, 1 / 3, 1 / 3)
    assert shares(judged.of("bacteria")) == (2, 1, 1 / 2, 0)
    assert shares(judged.of("virus")) == (1, 0, 0, 1)


def test_an_image_that_no_class_is_possible_for_is_uncertain():
    neither = SetRule(0.2, ("NORMAL", "PNEUMONIA"), (0.8, 0.7))
    judged = judge_sets(neither, table((0.5, 1, "unknown"), (0.1, 0, "normal")), 0.5)
    assert shares(judged.of("PNEUMONIA")) == (1, 0, 1, 0)
    assert shares(judged.of("NORMAL")) == (1, 1, 0, 0)


def test_intervals_are_over_groups_and_a_class_without_images_has_none():
    rows = [(0.1, 0, "normal"), (0.9, 0, "normal")] * 8
    single = judge_sets(RULE, table(*rows), 0.5).of("NORMAL").covered
    grouped = judge_sets(RULE, table(*rows, group=[f"g{i % 2}" for i in range(16)]), 0.5)
    wide = grouped.of("NORMAL").covered
    assert wide.interval.high - wide.interval.low > single.interval.high - single.interval.low
    empty = grouped.of("PNEUMONIA").covered
    assert (empty.value, empty.undefined, empty.interval) == (None, "there is no such image", None)


def test_it_comes_back_from_its_file(tmp_path):
    judged = Uncertainty((judge_sets(RULE, table(*ROWS), 0.5),))
    write_uncertainty(tmp_path / "uncertainty.json", judged)
    assert read_uncertainty(tmp_path / "uncertainty.json") == judged
    assert judged.at(0.05) == judged.test[0]
    (tmp_path / "uncertainty.json").write_text('{"schema_version": 9}')
    with pytest.raises(UserError, match="another version"):
        read_uncertainty(tmp_path / "uncertainty.json")


def test_no_image_is_wrong_without_being_told_beyond_what_is_left_out():
    """Of a class, the share that is called wrongly and is not uncertain is at most what its sets leave out."""
    random = np.random.default_rng(1)
    label = random.integers(0, 2, 400)
    probability = 1 / (1 + np.exp(-random.normal(2 * label - 1, 1.5)))
    rows = [(p, int(k), "unknown" if k else "normal") for p, k in zip(probability, label, strict=True)]
    for lowest in ((0.2, 0.2), (0.6, 0.6), (0.9, 0.3)):
        judged = judge_sets(SetRule(0.1, ("NORMAL", "PNEUMONIA"), lowest), table(*rows), 0.4)
        for row in judged.rows:
            assert row.wrong.value <= 1 - row.covered.value + 1e-12
