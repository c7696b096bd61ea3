from dataclasses import replace

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import SetRule
from cxr_jax.evaluation.robustness import (
    Robustness,
    level_of,
    mean_corruption_error,
    mean_error,
    read_robustness,
    write_robustness,
)
from cxr_jax.runs.predictions import Predictions


def table(probability, label, group=None):
    names = [f"{i}.png" for i in range(len(label))]
    subtypes = ["unknown" if each else "normal" for each in label]
    return Predictions(names, ["val"] * len(label), group or [""] * len(label), subtypes, label, None, probability)


GOOD = table([0.1, 0.2, 0.3, 0.6, 0.8, 0.9, 0.4, 0.7], [0, 0, 0, 0, 1, 1, 1, 1])
"""One false alarm of four, one missed of four."""
CHANCE = table([0.6] * 8, [0, 0, 0, 0, 1, 1, 1, 1])
PERFECT = table([0.1] * 4 + [0.9] * 4, [0, 0, 0, 0, 1, 1, 1, 1])


def record(levels, split="val", **told):
    return Robustness(
        split, 8, 0.5, 0, "abc", level_of("clean", 0, GOOD, 0.5), tuple(levels), mean_error(levels), **told
    )


def test_a_level_tells_ranking_and_calls_with_intervals():
    level = level_of("blur", 2, GOOD, 0.5)
    assert (level.sensitivity.value, level.specificity.value, level.error) == (0.75, 0.75, 0.25)
    assert level.roc_auc.value == 15 / 16
    assert level.covered is level.uncertain is level.unlike is None
    grouped = level_of("blur", 2, table(GOOD.probability, GOOD.label, list("aabbccdd")), 0.5)
    for name in ("sensitivity", "specificity"):
        apart, together = getattr(level, name).interval, getattr(grouped, name).interval
        assert together.high - together.low > apart.high - apart.low


def test_uncertain_calls_and_films_unlike_training_are_shares_of_all():
    rule = SetRule(0.05, ("NORMAL", "PNEUMONIA"), (0.5, 0.35))
    level = level_of("noise", 1, GOOD, 0.5, rule, np.arange(8) < 2)
    # 0.4 may be both
    assert (level.uncertain.value, level.covered.value, level.unlike.value) == (1 / 8, 7 / 8, 2 / 8)


def test_the_mean_error_is_over_severities_and_then_over_kinds():
    levels = [level_of("a", 1, GOOD, 0.5), level_of("a", 2, CHANCE, 0.5), level_of("b", 1, PERFECT, 0.5)]
    assert mean_error(levels) == pytest.approx(((0.25 + 0.5) / 2 + 0) / 2)


def test_the_mean_corruption_error_is_relative_to_the_reference_kind_by_kind():
    own = [level_of("a", 1, GOOD, 0.5), level_of("a", 2, GOOD, 0.5), level_of("b", 1, CHANCE, 0.5)]
    reference = record([level_of("a", 1, CHANCE, 0.5), level_of("a", 2, CHANCE, 0.5), level_of("b", 1, GOOD, 0.5)])
    assert mean_corruption_error(own, reference) == pytest.approx((0.5 / 1 + 0.5 / 0.25) / 2)
    assert mean_corruption_error(reference.levels, reference) == 1
    # a reference without errors has no share
    assert mean_corruption_error(own, record([level_of(kind, 1, PERFECT, 0.5) for kind in "ab"])) is None


def test_images_of_one_class_have_no_error():
    level = level_of("a", 1, table([0.2, 0.7], [1, 1]), 0.5)
    assert (level.error, level.roc_auc.value, level.specificity.value) == (None, None, None)
    assert level.specificity.undefined and mean_error([level]) is None


def test_it_comes_back_from_its_file(tmp_path):
    rule = SetRule(0.05, ("NORMAL", "PNEUMONIA"), (0.5, 0.35))
    whole = record([level_of("a", 1, GOOD, 0.5, rule, np.zeros(8, bool)), level_of("b", 1, CHANCE, 0.5)])
    whole = replace(whole, reference="other", mean_corruption_error=0.9)
    write_robustness(tmp_path / "r.json", whole)
    assert read_robustness(tmp_path / "r.json") == whole
    assert whole.kinds == ("a", "b") and whole.error_of("b") == 0.5
    (tmp_path / "r.json").write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="evaluate the run with --degraded again"):
        read_robustness(tmp_path / "r.json")
