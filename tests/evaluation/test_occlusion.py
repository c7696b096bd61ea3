"""Differences between a region and whole images are paired image by image."""

import dataclasses

import numpy as np
import pytest

from cxr_jax.evaluation.occlusion import Occlusion, ordered, read_occlusion, shown, write_occlusion
from cxr_jax.evaluation.robustness import level_of
from cxr_jax.runs.predictions import Predictions

COUNT = 60


def table(logits, label, groups=None):
    count = len(label)
    return Predictions.from_logits(
        np.stack([-logits / 2, logits / 2], axis=1),
        file=[f"{row}.png" for row in range(count)],
        split=["val"] * count,
        group=groups or [f"g{row}" for row in range(count)],
        subtype=["unknown"] * count,
        label=label,
    )


@pytest.fixture
def whole():
    random = np.random.default_rng(0)
    label = np.repeat([0, 1], COUNT // 2).astype(np.int32)
    return table(random.normal(2.0 * label - 1, 1.2), label)


def region_of(whole, logits):
    predictions = table(logits, whole.label, list(whole.group))
    return shown(level_of("lungs", 0, predictions, 0.5), whole, predictions, 0.5)


def scores(predictions):
    return predictions.logits[:, 1] - predictions.logits[:, 0]


def test_the_same_predictions_differ_by_nothing(whole):
    found = region_of(whole, scores(whole))
    assert (found.region, found.roc_auc.value) == ("lungs", 0)
    assert found.sensitivity.value == found.specificity.value == 0
    assert found.roc_auc.intervals == found.sensitivity.intervals == ()


def test_differences_are_those_of_the_figures_and_narrower_than_unpaired(whole):
    random = np.random.default_rng(1)
    found = region_of(whole, scores(whole) + random.normal(-0.3, 0.5, COUNT))
    level = level_of("whole", 0, whole, 0.5)
    for name in ("roc_auc", "sensitivity", "specificity"):
        difference = getattr(found, name)
        assert difference.value == pytest.approx(getattr(found.level, name).value - getattr(level, name).value)
        low, high = difference.interval.low, difference.interval.high
        assert low <= difference.value <= high
        own = getattr(level, name).interval
        assert high - low < np.hypot(own.high - own.low, own.high - own.low)
    assert found.sensitivity.value < 0 <= found.specificity.value


def test_images_of_one_group_count_together(whole):
    random = np.random.default_rng(2)
    changed = scores(whole) + random.normal(-0.5, 1, COUNT)
    alone = region_of(whole, changed).sensitivity.interval
    # everything twice, in groups of two, is no more evidence than it was
    twice = table(np.repeat(scores(whole), 2), np.repeat(whole.label, 2), [f"g{row // 2}" for row in range(2 * COUNT)])
    both = region_of(twice, np.repeat(changed, 2)).sensitivity.interval
    assert both.high - both.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_other_images_cannot_be_paired(whole):
    other = dataclasses.replace(whole, file=whole.file[::-1])
    with pytest.raises(ValueError, match="different images"):
        shown(level_of("lungs", 0, other, 0.5), whole, other, 0.5)


def test_the_record_comes_back_and_the_best_region_is_told_first(whole, tmp_path):
    random = np.random.default_rng(3)
    regions = tuple(
        dataclasses.replace(found, level=dataclasses.replace(found.level, kind=name))
        for name, noise in (("border", 3.0), ("lungs", 0.1))
        for found in [region_of(whole, scores(whole) + random.normal(0, noise, COUNT))]
    )
    record = Occlusion("val", COUNT, 1, 0.5, "abc", "def", level_of("whole", 0, whole, 0.5), regions)
    write_occlusion(tmp_path / "occlusion_val.json", record)
    assert read_occlusion(tmp_path / "occlusion_val.json") == record
    assert [entry.region for entry in ordered(record.regions)] == ["lungs", "border"]
