from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.cross_validation import joined, judge_folds, mean_roc_auc
from cxr_jax.evaluation.intervals import auc_interval
from cxr_jax.evaluation.operating_point import choose_operating_point
from cxr_jax.runs.predictions import Predictions


def fold(number: int, images: int = 80) -> Predictions:
    """Predictions on images of one fold, four a group."""
    random = np.random.default_rng(number)
    label = np.arange(images) // 4 % 2
    margin = random.normal(label * 1.5, 1)
    return Predictions.from_logits(
        np.stack([-margin, margin], axis=1) / 2,
        file=[f"fold{number} image{n}" for n in range(images)],
        split=["val"] * images,
        group=[f"fold{number} group{n // 4}" for n in range(images)],
        subtype=["bacteria" if positive else "normal" for positive in label],
        label=label,
    )


def shifted(table: Predictions, shift: float) -> Predictions:
    """The same images by a network that finds more pneumonia everywhere."""
    return Predictions.from_logits(
        table.logits + np.array([0, shift]),
        file=table.file,
        split=table.split,
        group=table.group,
        subtype=table.subtype,
        label=table.label,
    )


def judged(folds):
    point = choose_operating_point(joined(folds), rule="sensitivity", target_sensitivity=0.9)
    return judge_folds(folds, point, Confidence(resamples=50))


def test_networks_that_disagree_lower_the_pooled_area_and_not_the_mean_of_folds():
    agreeing = [fold(0), fold(1), fold(2)]
    disagreeing = [fold(0), shifted(fold(1), 4.0), fold(2)]
    one, other = judged(agreeing), judged(disagreeing)
    assert other.mean_roc_auc == one.mean_roc_auc
    assert other.mean_roc_auc.value == pytest.approx(np.mean([f.metrics["roc_auc"].value for f in other.folds]))
    assert other.pooled.metrics["roc_auc"].value < one.pooled.metrics["roc_auc"].value - 0.02
    assert [entry.images for entry in one.folds] == [80] * 3
    assert (one.pooled.images, one.pooled.groups, one.pooled.classes) == (240, 60, {"NORMAL": 120, "PNEUMONIA": 120})


def test_calls_of_every_fold_are_at_the_one_operating_point():
    folds = [fold(0), shifted(fold(1), 2.0)]
    found = judged(folds)
    for table, entry in zip(folds, found.folds, strict=True):
        called = table.probability >= found.operating_point.threshold
        assert entry.metrics["accuracy"].value == np.mean(called == table.label)
    assert found.pooled.metrics["sensitivity"].value >= 0.9


def test_the_interval_is_that_of_one_fold_and_narrows_with_more():
    table = fold(0)
    (interval,) = mean_roc_auc([table], 0.95).intervals
    expected = auc_interval(table.label, table.probability, table.clusters())
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    (narrower,) = mean_roc_auc([table, fold(1), fold(2), fold(3)], 0.95).intervals
    assert (narrower.high - narrower.low) / (interval.high - interval.low) == pytest.approx(0.5, abs=0.15)


def test_a_fold_with_one_group_of_a_class_has_no_area_to_average():
    lonely = fold(0, images=8)
    found = mean_roc_auc([fold(1), lonely], 0.95)
    assert (found.value, found.intervals) == (None, ())
    assert "fewer than two groups" in found.undefined


def test_an_image_belongs_to_one_fold():
    with pytest.raises(ValueError, match="a file occurs twice"):
        joined([fold(0), fold(0)])
    without = dataclasses.replace(fold(1), logits=None)
    assert joined([fold(0), without]).logits is None
