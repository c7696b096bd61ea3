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
    with_wrong_calls,
    write_robustness,
    wrongly_called,
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


def test_the_mean_error_has_an_interval_for_other_patients():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 30)
    tables = [table(rng.uniform(size=60), label, [str(number // 3) for number in range(60)]) for _ in range(4)]
    levels = [level_of("a", severity, drawn, 0.5) for severity, drawn in enumerate(tables, start=1)]
    wrong = np.mean([wrongly_called(drawn, 0.5)[""][1] for drawn in tables], axis=0)
    told = with_wrong_calls(record(levels), tables[0], wrong)
    # what images are wrong adds up to the error of the levels
    shares = np.array(list(told.wrong.values()))
    assert (shares[:30].mean() + shares[30:].mean()) / 2 == pytest.approx(told.mean_error)
    interval = told.mean_error_interval
    assert interval.low < told.mean_error < interval.high and interval.method == "group bootstrap"
    # a group says less than its three images apart, where these are wrong together
    together = np.repeat(wrong[::3], 3)
    alone = replace(tables[0], group=[""] * 60)
    widths = [with_wrong_calls(record(levels), images, together).mean_error_interval for images in (tables[0], alone)]
    assert widths[0].high - widths[0].low > 1.3 * (widths[1].high - widths[1].low)


def test_errors_are_compared_with_the_reference_image_by_image():
    label = np.repeat([0, 1], 40)
    images = table(np.zeros(80), label)
    hard = np.tile([0.0, 1.0], 40)
    # hard images are hard for both; this one calls a tenth more of every image wrongly
    reference = with_wrong_calls(record([]), images, 0.8 * hard)
    told = with_wrong_calls(record([]), images, 0.8 * hard + np.linspace(0.05, 0.15, 80), reference)
    assert told.less_reference.value == pytest.approx(0.1)
    paired, own = told.less_reference.interval, told.mean_error_interval
    assert 0.09 < paired.low < paired.high < 0.11 < own.high - own.low
    # other images are not paired
    others = replace(images, file=[f"other {name}" for name in images.file])
    assert with_wrong_calls(record([]), others, hard, reference).less_reference is None


def test_images_of_one_class_have_no_interval():
    told = with_wrong_calls(record([]), table([0.2, 0.7], [1, 1]), np.array([0.5, 1.0]))
    assert told.mean_error_interval is None and told.wrong == {"0.png": 0.5, "1.png": 1.0}


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
