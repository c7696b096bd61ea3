import dataclasses

import numpy as np
import pytest

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import bootstrap_values
from cxr_jax.evaluation.metrics import CALL_METRICS, METRICS, metric_value
from cxr_jax.evaluation.operating_point import RULES, choose_operating_point, choose_threshold, choose_thresholds
from cxr_jax.evaluation.rule_draws import RuledNetwork, draw_rule
from cxr_jax.runs.predictions import Predictions

RULE = {"threshold": 0.4, "target_sensitivity": 0.9, "cost_ratio": 3.0}


def table(split, seed, count=120, *, groups=40, ties=False):
    random = np.random.default_rng(seed)
    label = (np.arange(count) % 3 > 0).astype(int)
    probability = 1 / (1 + np.exp(-random.normal(size=count) - 0.9 * (2 * label - 1)))
    group = [f"{split}-{label[i]}-{random.integers(groups)}" for i in range(count)]
    return Predictions(
        file=[f"{split}/{i}" for i in range(count)],
        split=[split] * count,
        group=group,
        subtype=["unknown" if positive else "normal" for positive in label],
        label=label,
        logits=None,
        probability=probability.round(1) if ties else probability,
    )


def network(rule="sensitivity", seed=0):
    validation, test = table("val", seed), table("test", seed + 100)
    return RuledNetwork(validation, test, choose_operating_point(validation, rule=rule, **RULE))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ties", [False, True])
def test_a_rule_under_weights_chooses_what_it_chooses_on_images_repeated_as_often(rule, ties):
    predictions = table("val", 1, 40, groups=12, ties=ties)
    weights = np.random.default_rng(2).integers(0, 3, (60, 40)).astype(float)
    weights[:, :2] = 1
    chosen = choose_thresholds(Cases(predictions.label, predictions.probability, 0.5, weights), rule, RULE)
    for row, threshold in zip(weights, chosen, strict=True):
        drawn = np.repeat(np.arange(40), row.astype(int))
        told = (predictions.probability[drawn], predictions.label[drawn])
        assert threshold == choose_threshold(*told, rule=rule, **RULE)


@pytest.mark.parametrize("rule", ["sensitivity", "youden", "cost_ratio"])
def test_a_draw_without_a_class_that_the_rule_needs_has_no_threshold(rule):
    label, probability = np.array([0, 1, 1]), np.array([0.2, 0.6, 0.9])
    weights = np.array([[1.0, 1, 1], [3, 0, 0], [0, 2, 1]])
    chosen = choose_thresholds(Cases(label, probability, 0.5, weights), rule, RULE)
    assert np.isnan(chosen).tolist() == [False, True, rule != "sensitivity"]
    assert chosen[0] == 0.6


@pytest.mark.parametrize("name", CALL_METRICS)
def test_a_threshold_for_each_weighting_gives_what_each_gives_alone(name):
    test = table("test", 3)
    random = np.random.default_rng(4)
    weights, thresholds = random.integers(0, 3, (20, 120)).astype(float), random.random(20)
    together = METRICS[name].function(Cases(test.label, test.probability, thresholds, weights))
    alone = [
        METRICS[name].function(Cases(test.label, test.probability, float(threshold), row[None]))[0]
        for threshold, row in zip(thresholds, weights, strict=True)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize("rule", ["sensitivity", "youden", "cost_ratio"])
def test_every_draw_sets_the_threshold_anew_and_judges_test_at_it(rule):
    drawn = draw_rule([network(rule)], confidence=Confidence(resamples=200))
    assert drawn.thresholds.shape == (1, 200)
    assert set(drawn.values) == set(CALL_METRICS)
    assert len(np.unique(drawn.thresholds)) > 5
    # a lower threshold calls more images ill: over draws the two rates move against each other
    assert np.corrcoef(drawn.thresholds[0], drawn.values["specificity"][0])[0, 1] > 0.2
    assert np.corrcoef(drawn.thresholds[0], drawn.values["sensitivity"][0])[0, 1] < -0.2


def test_the_rate_of_a_rule_spreads_as_the_rates_of_validations_and_tests_do():
    """Validation and test are drawn from a known population many times: their spread is what the draws must tell."""
    seeds = range(300)
    specificities = []
    for seed in seeds:
        one = network(seed=1000 + seed)
        cases = Cases.unweighted(one.test.label, one.test.probability, one.point.threshold)
        specificities.append(metric_value("specificity", cases))
    told = [
        np.std(draw_rule([network(seed=1000 + seed)], ["specificity"], Confidence(resamples=100)).values["specificity"])
        for seed in range(30)
    ]
    assert np.mean(told) == pytest.approx(np.std(specificities), rel=0.25)


def test_a_fixed_threshold_is_drawn_as_it_is_and_test_as_everywhere_else():
    one = network("fixed")
    confidence = Confidence(resamples=50, seed=7)
    drawn = draw_rule([one], ["accuracy"], confidence)
    assert (drawn.thresholds == 0.4).all()
    cases = Cases.unweighted(one.test.label, one.test.probability, 0.4)
    alone = bootstrap_values(
        cases, one.test.clusters(), {"accuracy": METRICS["accuracy"].function}, resamples=50, seed=7
    )
    np.testing.assert_allclose(drawn.values["accuracy"][0], alone["accuracy"], rtol=1e-12)


def test_networks_over_the_same_images_share_their_draws_whatever_the_order_of_rows():
    one = network()
    order = np.random.default_rng(0).permutation(120)
    other = RuledNetwork(one.validation.select(order), one.test.select(order), one.point)
    drawn = draw_rule([one, other], confidence=Confidence(resamples=40))
    np.testing.assert_array_equal(drawn.thresholds[0], drawn.thresholds[1])
    for values in drawn.values.values():
        np.testing.assert_allclose(values[0], values[1], rtol=1e-12)


def test_validation_is_drawn_independently_of_test_even_where_groups_have_the_same_names():
    one = network()
    same = dataclasses.replace(one.validation, split=("test",) * 120)
    drawn = draw_rule([RuledNetwork(one.validation, same, one.point)], ["sensitivity"], Confidence(resamples=300))
    # drawn together, the sensitivity would never fall below the target of the rule
    assert (drawn.values["sensitivity"] < RULE["target_sensitivity"] - 0.02).mean() > 0.05


def test_the_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    whole = draw_rule([network()], confidence=Confidence(resamples=50))
    monkeypatch.setattr("cxr_jax.evaluation.rule_draws.VALUES_AT_ONCE", 240 * 7)
    done = []
    parts = draw_rule([network()], confidence=Confidence(resamples=50), advance=done.append)
    assert sum(done) == 50
    assert len(done) == 8
    np.testing.assert_array_equal(whole.thresholds, parts.thresholds)
    for name in CALL_METRICS:
        np.testing.assert_allclose(whole.values[name], parts.values[name], rtol=1e-12)
