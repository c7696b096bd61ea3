import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cxr_jax.config.schema import OperatingPointConfig
from cxr_jax.errors import UserError
from cxr_jax.evaluation import operating_point
from cxr_jax.evaluation.operating_point import OperatingPoint, choose_operating_point, choose_threshold
from cxr_jax.runs.predictions import Predictions

images_of_both_classes = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]) | st.floats(0, 1)), min_size=2, max_size=40
).filter(lambda images: 0 < sum(label for label, _ in images) < len(images))


def unpack(images):
    label, probability = zip(*images, strict=True)
    return np.array(label), np.array(probability)


def rates(label, probability, threshold):
    called = probability >= threshold
    return called[label == 1].mean(), 1 - called[label == 0].mean()


@given(images=images_of_both_classes, target=st.floats(0.01, 1))
def test_sensitivity_takes_the_highest_threshold_that_reaches_the_target(images, target):
    label, probability = unpack(images)
    threshold = choose_threshold(probability, label, rule="sensitivity", target_sensitivity=target)
    assert rates(label, probability, threshold)[0] >= target - 1e-8
    for higher in probability[probability > threshold]:
        assert rates(label, probability, higher)[0] < target


@given(images=images_of_both_classes)
def test_youden_is_the_best_sum_and_the_lowest_of_equals(images):
    label, probability = unpack(images)
    threshold = choose_threshold(probability, label, rule="youden")
    best = max(sum(rates(label, probability, t)) for t in probability)
    assert sum(rates(label, probability, threshold)) == pytest.approx(best)
    for lower in probability[probability < threshold]:
        assert sum(rates(label, probability, lower)) < best - 1e-9


@given(images=images_of_both_classes, ratio=st.sampled_from([0.5, 1.0, 5.0, 20.0]))
def test_cost_ratio_is_the_cheapest(images, ratio):
    label, probability = unpack(images)

    def cost(t):
        called = probability >= t
        return ratio * np.sum(label[~called]) + np.sum(1 - label[called])

    threshold = choose_threshold(probability, label, rule="cost_ratio", cost_ratio=ratio)
    assert cost(threshold) == min(cost(t) for t in probability)
    assert all(cost(lower) > cost(threshold) for lower in probability[probability < threshold])


@given(images=images_of_both_classes, seed=st.integers(0, 99), rule=st.sampled_from(operating_point.RULES))
def test_the_order_of_images_does_not_matter(images, seed, rule):
    label, probability = unpack(images)
    order = np.random.default_rng(seed).permutation(len(label))
    assert choose_threshold(probability, label, rule=rule) == choose_threshold(
        probability[order], label[order], rule=rule
    )


def test_a_dearer_miss_lowers_the_threshold():
    random = np.random.default_rng(0)
    label = np.arange(400) % 2
    probability = 1 / (1 + np.exp(-(random.normal(size=400) + 2 * label - 1)))
    chosen = [choose_threshold(probability, label, rule="cost_ratio", cost_ratio=ratio) for ratio in (0.2, 1, 5, 25)]
    assert chosen == sorted(chosen, reverse=True)
    assert len(set(chosen)) == 4


def test_fixed_needs_no_image_of_either_class():
    assert choose_threshold(np.array([0.2]), np.array([0]), rule="fixed", threshold=0.3) == 0.3


@pytest.mark.parametrize(
    ("rule", "label", "missing"),
    [
        ("youden", 0, "PNEUMONIA"),
        ("youden", 1, "NORMAL"),
        ("sensitivity", 0, "PNEUMONIA"),
        ("cost_ratio", 1, "NORMAL"),
    ],
)
def test_a_rule_without_its_classes_is_one_sentence(rule, label, missing):
    with pytest.raises(UserError, match=f"rule {rule} .* no validation image is {missing}"):
        choose_threshold(np.array([0.2, 0.4]), np.array([label, label]), rule=rule)


def test_an_unknown_rule_is_a_bug():
    with pytest.raises(ValueError, match="unknown rule"):
        choose_threshold(np.array([0.2]), np.array([0]), rule="luck")


def test_the_rules_and_their_arguments_are_those_of_the_config():
    config = OperatingPointConfig()
    label, probability = np.array([0, 1]), np.array([0.2, 0.9])
    for rule in operating_point.RULES:
        assert OperatingPointConfig(rule=rule).rule == rule
        assert 0 <= choose_threshold(probability, label, **{**vars(config), "rule": rule}) <= 1


def validation(count=200, seed=0):
    random = np.random.default_rng(seed)
    label = np.arange(count) % 2
    logits = np.stack([np.zeros(count), 3 * (random.normal(size=count) + 2 * label - 1)], axis=1)
    return Predictions.from_logits(
        logits,
        file=[str(i) for i in range(count)],
        split=["val"] * count,
        group=[""] * count,
        subtype=["unknown" if positive else "normal" for positive in label],
        label=label,
    )


def test_the_point_states_what_it_promised_and_reads_back(tmp_path):
    predictions = validation()
    point = choose_operating_point(predictions, rule="sensitivity", target_sensitivity=0.95)
    sensitivity, specificity = rates(predictions.label, predictions.probability, point.threshold)
    assert (point.sensitivity, point.specificity) == (pytest.approx(sensitivity), pytest.approx(specificity))
    assert point.parameters == {"target_sensitivity": 0.95}
    assert point.images == 200
    assert 1 < point.temperature < 3
    path = tmp_path / "operating_point.json"
    operating_point.write_operating_point(path, point)
    assert operating_point.read_operating_point(path) == point
    assert json.loads(path.read_text())["threshold"] == point.threshold


def test_a_point_without_validation_reads_back(tmp_path):
    path = tmp_path / "operating_point.json"
    operating_point.write_operating_point(path, OperatingPoint(threshold=0.5, parameters={}))
    assert operating_point.read_operating_point(path) == OperatingPoint(threshold=0.5, parameters={})


def test_youden_has_no_parameter():
    assert choose_operating_point(validation(), rule="youden").parameters == {}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 99}, "another version of cxr_jax: choose the operating point anew"),
        ({"threshold": "high"}, "'high' is not a number"),
        ({"threshold": True}, "True is not a number"),
        ({"validation": {}}, "is damaged"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, change, sentence):
    path = tmp_path / "operating_point.json"
    path.write_text(json.dumps({**OperatingPoint(threshold=0.5).as_json(), **change}))
    with pytest.raises(UserError, match=sentence):
        operating_point.read_operating_point(path)


@given(images=images_of_both_classes)
def test_the_threshold_is_one_that_applies_as_it_was_counted(images):
    """The promise counts with the very comparison that later calls use."""
    label, probability = unpack(images)
    assume(len(set(probability.tolist())) == len(probability))
    predictions = Predictions(
        file=[str(i) for i in range(len(label))],
        split=["val"] * len(label),
        group=[""] * len(label),
        subtype=["unknown" if positive else "normal" for positive in label],
        label=label,
        logits=None,
        probability=probability,
    )
    point = choose_operating_point(predictions, rule="youden")
    assert point.sensitivity == pytest.approx(rates(label, probability, point.threshold)[0])
