import dataclasses

import numpy as np
import pytest

from cxr_jax.evaluation.baselines import ALL_MEASURES, ALL_PNEUMONIA, JUDGED, judge_baselines
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.metrics import METRICS
from cxr_jax.runs.predictions import Predictions

QUICK = Confidence(resamples=50)


def made_up(images, seed, split):
    """Measures that tell the classes apart with high values, with low values, not at all, or are equal; and a table."""
    random = np.random.default_rng(seed)
    label = (np.arange(images) % 8 > 2).astype(int)
    columns = {
        "high": label + random.normal(size=images),
        "low": 1000 - 300 * label + 400 * random.normal(size=images),
        "nothing": random.normal(size=images),
        "equal": np.full(images, 224.0**2),
    }
    names = [f"{split}-{index}" for index in range(images)]
    subtype = ["bacteria" if positive else "normal" for positive in label]
    groups = [f"{split}-{index // 2}" for index in range(images)]
    table = Predictions(names, [split] * images, groups, subtype, label, None, np.full(images, 0.5))
    return columns, table


@pytest.fixture(scope="module")
def splits():
    return {
        split: made_up(images, seed, split)
        for seed, (split, images) in enumerate([("train", 800), ("val", 200), ("test", 300)])
    }


def judged(splits, **changes):
    parts = {**splits, **changes}
    return judge_baselines(parts["train"][0], parts["train"][1].label, parts["val"], parts["test"], QUICK)


@pytest.fixture(scope="module")
def baselines(splits):
    return judged(splits)


def value(baselines, name, metric="roc_auc"):
    return baselines[name].test[metric].value


def test_the_direction_comes_from_training_and_the_auc_is_that_of_the_measure(baselines, splits, metric_values):
    columns, table = splits["test"]
    for name, sign in (("high", 1), ("low", -1)):
        scores = sign * columns[name]
        ranks = np.argsort(np.argsort(scores)) / len(scores)
        assert value(baselines, name) == pytest.approx(metric_values(table.label, ranks)["roc_auc"], abs=1e-12)
        assert np.sign(baselines[name].weights[name]) == sign
        assert value(baselines, name) > 0.65
        assert baselines[name].validation_roc_auc > 0.65
    assert abs(value(baselines, "nothing") - 0.5) < 0.1


def test_a_test_split_that_turns_round_scores_below_chance(splits):
    """The direction is fixed before: it is not chosen to look best on test."""
    columns, table = splits["test"]
    turned = {**columns, "high": -columns["high"]}
    assert value(judged(splits, test=(turned, table)), "high") < 0.35


def test_test_labels_choose_nothing(baselines, splits):
    columns, table = splits["test"]
    random = np.random.default_rng(5)
    label = random.permutation(table.label)
    shuffled = dataclasses.replace(table, label=label, subtype=["bacteria" if one else "normal" for one in label])
    others = judged(splits, test=(columns, shuffled))
    for name, baseline in baselines.items():
        if baseline is None:
            continue
        for fixed in ("threshold", "weights", "validation_roc_auc"):
            assert getattr(others[name], fixed) == getattr(baseline, fixed)
    assert abs(value(others, "high") - 0.5) < 0.1


def test_the_threshold_is_the_best_on_validation_by_youden(baselines, splits):
    columns, table = splits["val"]
    calls = [(columns["high"] >= cut, cut) for cut in np.sort(columns["high"])]
    best = max(np.mean(call[table.label == 1]) - np.mean(call[table.label == 0]) for call, _ in calls)
    (cut,) = {
        cut
        for call, cut in calls
        if np.isclose(np.mean(call[table.label == 1]) - np.mean(call[table.label == 0]), best)
    }
    columns, table = splits["test"]
    called = columns["high"] >= cut
    assert value(baselines, "high", "sensitivity") == pytest.approx(np.mean(called[table.label == 1]))
    assert value(baselines, "high", "specificity") == pytest.approx(np.mean(~called[table.label == 0]))


def test_all_measures_together_beat_each_alone(baselines):
    assert value(baselines, ALL_MEASURES) > max(value(baselines, "high"), value(baselines, "low")) + 0.03
    assert set(baselines[ALL_MEASURES].weights) == {"high", "low", "nothing"}


def test_a_measure_that_never_varies_says_nothing(baselines):
    assert baselines["equal"] is None


def test_only_equal_measures_leave_all_pneumonia(splits):
    parts = {split: ({"equal": columns["equal"]}, table) for split, (columns, table) in splits.items()}
    assert {name for name, baseline in judged(parts).items() if baseline} == {ALL_PNEUMONIA}


def test_all_pneumonia_scores_its_share(baselines, splits):
    table = splits["test"][1]
    assert value(baselines, ALL_PNEUMONIA, "accuracy") == np.mean(table.label == 1)
    assert value(baselines, ALL_PNEUMONIA, "sensitivity") == 1
    assert value(baselines, ALL_PNEUMONIA, "specificity") == 0
    assert value(baselines, ALL_PNEUMONIA) == 0.5


def test_they_are_judged_as_networks_are(baselines):
    for baseline in baselines.values():
        if baseline is None:
            continue
        assert tuple(baseline.test) == JUDGED
        for name, measured in baseline.test.items():
            assert measured.title == METRICS[name].title
    assert baselines["high"].test["roc_auc"].interval.method == "Obuchowski, logit"
    low, high = (getattr(baselines["high"].test["accuracy"].interval, end) for end in ("low", "high"))
    assert low < value(baselines, "high", "accuracy") < high


def test_validation_of_one_class_leaves_the_threshold_at_one_half(splits):
    columns, table = splits["val"]
    rows = table.label == 1
    single = ({name: values[rows] for name, values in columns.items()}, table.select(rows))
    baselines = judged(splits, val=single)
    assert baselines["high"].threshold == 0.5
    assert baselines["high"].validation_roc_auc is None


def test_classes_that_a_measure_separates_give_finite_weights(splits):
    columns, table = splits["train"]
    train = {**columns, "high": table.label * 10.0}
    weights = judged(splits, train=(train, table))["high"].weights
    assert 1 < weights["high"] < 100
