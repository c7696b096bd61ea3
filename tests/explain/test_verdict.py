import json

import numpy as np
import pytest

from cxr_jax.explain.verdict import (
    ALL,
    FEWEST_IMAGES,
    Check,
    Verdict,
    column_means,
    judged_classes,
    mean_over_images,
    means_by_class,
)

CHECK = Check("name", "Title", "Paper 2020", "what", "lower end above 0")


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 400)
    mean = mean_over_images(values, np.arange(400))
    assert mean.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert mean.high - mean.value == pytest.approx(half, rel=0.1)
    assert mean.value - mean.low == pytest.approx(half, rel=0.1)


def test_groups_are_what_was_sampled():
    values = np.repeat(np.random.default_rng(1).normal(size=40), 10)
    alone, grouped = (mean_over_images(values, clusters) for clusters in (np.arange(400), np.arange(400) // 10))
    assert grouped.high - grouped.low == pytest.approx((alone.high - alone.low) * np.sqrt(10), rel=0.2)


def test_without_spread_both_ends_are_the_mean():
    assert mean_over_images(np.full(6, 0.5), np.arange(6)) == mean_over_images(np.full(6, 0.5), np.zeros(6, int))
    assert mean_over_images(np.full(6, 0.5), np.arange(6)).low == 0.5


def test_columns_are_means_of_their_own():
    values = np.random.default_rng(2).normal(size=(9, 3))
    found = column_means(values, np.arange(9))
    np.testing.assert_allclose(found.value, values.mean(0))
    assert found.high[2] == mean_over_images(values[:, 2], np.arange(9)).high


def test_every_class_has_to_pass_by_itself():
    values, classes = np.r_[np.full(8, 2.0), np.full(8, -0.1)], np.repeat([0, 1], 8)
    means = means_by_class(values, classes, np.arange(16))
    assert {name: mean.value for name, mean in means.items()} == pytest.approx({"NORMAL": 2, "PNEUMONIA": -0.1})
    assert values.mean() > 0
    assert CHECK.verdict(means, lambda mean: mean.low > 0, "told").passes is False
    assert CHECK.verdict(means, lambda mean: mean.low > -1, "told").passes is True


def test_a_class_of_few_images_is_not_judged_by_itself():
    classes = np.array([1] * FEWEST_IMAGES + [0] * (FEWEST_IMAGES - 1))
    assert list(judged_classes(classes)) == ["PNEUMONIA"]
    few = judged_classes(np.array([0, 1, 1]))
    assert list(few) == [ALL] and few[ALL].all()


def test_a_verdict_is_json_with_its_rule():
    verdict = CHECK.verdict({ALL: mean_over_images(np.arange(5.0), np.arange(5))}, lambda mean: True, "told")
    stored = verdict.as_json()
    assert stored["passes"] is True
    assert stored["rule"] == "lower end above 0"
    assert stored["numbers"][ALL]["low"] < stored["numbers"][ALL]["value"] == 2 < stored["numbers"][ALL]["high"]
    nothing = CHECK.no_verdict("because")
    for kept in (verdict, nothing):
        assert Verdict.from_json(json.loads(json.dumps(kept.as_json()))) == kept
    assert (nothing.as_json()["passes"], nothing.as_json()["numbers"]) == (None, {})
    assert [kept.word for kept in (verdict, CHECK.verdict(verdict.means, lambda mean: False, ""), nothing)] == [
        "passes",
        "fails",
        "no verdict",
    ]
