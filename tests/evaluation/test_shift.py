import json

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from cxr_jax.evaluation.shift import diagnose_shift, prior_correction, score_shift, split_drop
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import to_json


def made_up(normals, pneumonia, *, seed, split, difference=3.0, moved=0.0, group_size=1):
    random = np.random.default_rng(seed)
    label = np.r_[np.zeros(normals, int), np.ones(pneumonia, int)]
    shared = random.normal(size=len(label))[np.arange(len(label)) // group_size]
    margin = shared + 0.3 * random.normal(size=len(label)) + difference * (label - 0.5) + moved
    return Predictions.from_logits(
        np.stack([np.zeros(len(label)), margin], axis=1),
        file=[f"{split}/{i}" for i in range(len(label))],
        split=[split] * len(label),
        group=[f"{split}-{kind}-{i // group_size}" for i, kind in enumerate(label)],
        subtype=["virus" if positive else "normal" for positive in label],
        label=label,
    )


def test_without_shift_nothing_is_found():
    validation = made_up(600, 1500, seed=1, split="val")
    test = made_up(600, 1500, seed=2, split="test")
    found = diagnose_shift(validation, test, 0.5)
    json.dumps(to_json(found), allow_nan=False)
    for scores in found.scores.values():
        assert scores.higher_on_test == pytest.approx(0.5, abs=0.04)
        assert scores.interval.low < 0.5 < scores.interval.high
    assert found.drop.total == pytest.approx(0, abs=0.03)
    assert found.drop.ranking == pytest.approx(0, abs=0.03)


def test_moved_scores_are_a_matter_of_the_operating_point():
    validation = made_up(1000, 1000, seed=1, split="val")
    test = made_up(1000, 1000, seed=2, split="test", moved=2.0)
    drop = split_drop(validation, test, 0.5)
    assert drop.total > 0.15
    assert drop.operating_point == pytest.approx(drop.total, abs=0.03)
    assert drop.ranking == pytest.approx(0, abs=0.03)
    normals = score_shift(validation, test, 0)
    assert normals.higher_on_test > 0.85
    assert normals.interval.low > 0.8
    assert normals.test_median > normals.validation_median


def test_harder_images_are_a_matter_of_ranking():
    validation = made_up(1000, 1000, seed=1, split="val", difference=4.0)
    test = made_up(1000, 1000, seed=2, split="test", difference=1.5)
    drop = split_drop(validation, test, 0.5)
    assert drop.ranking > 0.1
    assert drop.operating_point == pytest.approx(0, abs=0.03)


def test_the_parts_of_the_drop_add_up_and_are_those_of_the_metrics(metric_values):
    validation = made_up(80, 220, seed=1, split="val")
    test = made_up(90, 150, seed=2, split="test", difference=2.0, moved=1.0)
    drop = split_drop(validation, test, 0.4)
    assert drop.ranking + drop.operating_point == pytest.approx(drop.total)
    assert drop.test == metric_values(test.label, test.probability, 0.4)["balanced_accuracy"]
    best = max(metric_values(test.label, test.probability, t)["balanced_accuracy"] for t in test.probability)
    assert drop.test_best == pytest.approx(best)


def test_the_shift_of_scores_is_mann_and_whitneys_and_respects_groups():
    validation = made_up(90, 30, seed=1, split="val", group_size=3)
    test = made_up(120, 30, seed=2, split="test", moved=0.3, group_size=3)
    found = score_shift(validation, test, 0)
    u = mannwhitneyu(test.probability[:120], validation.probability[:90]).statistic
    assert found.higher_on_test == pytest.approx(u / (90 * 120))
    assert found.interval.method == "Obuchowski, logit"
    alone = [Predictions(**{**vars(p), "group": [""] * len(p)}) for p in (validation, test)]
    independent = score_shift(*alone, 0).interval
    assert independent.method == "DeLong, logit"
    width = found.interval.high - found.interval.low
    assert width > 1.3 * (independent.high - independent.low)


def test_the_prior_correction_multiplies_odds_and_helps_when_only_shares_differ(metric_values):
    validation = made_up(500, 1500, seed=1, split="val", difference=2.0)
    test = made_up(1500, 500, seed=2, split="test", difference=2.0)
    # Scores that are true probabilities where three in four are PNEUMONIA; the spread of a score is about 1.09.
    honest = [
        Predictions.from_logits(
            np.stack([np.zeros(len(p)), p.logits[:, 1] * 2.0 / 1.09 + np.log(3)], axis=1),
            **{name: getattr(p, name) for name in ("file", "split", "group", "subtype", "label")},
        )
        for p in (validation, test)
    ]
    found = prior_correction(*honest, 0.5)
    assert (found.validation_share, found.test_share) == (0.75, 0.25)
    assert found.after["log_loss"] < found.before["log_loss"] - 0.05
    assert found.after["accuracy"] > found.before["accuracy"] + 0.02
    odds = honest[1].probability / (1 - honest[1].probability) / 9
    expected = metric_values(honest[1].label, odds / (1 + odds), 0.5)
    for name, value in found.after.items():
        assert value == pytest.approx(expected[name], abs=1e-9)


def test_equal_shares_correct_nothing():
    validation = made_up(50, 100, seed=1, split="val")
    test = made_up(100, 200, seed=2, split="test")
    found = prior_correction(validation, test, 0.5)
    assert found.after == pytest.approx(found.before)


@pytest.mark.parametrize("which", [0, 1])
def test_a_split_of_one_class_has_no_diagnosis(which):
    pair = [made_up(50, 100, seed=1, split="val"), made_up(50, 100, seed=2, split="test")]
    pair[which] = pair[which].select(pair[which].label == 1)
    assert diagnose_shift(*pair, 0.5) is None
