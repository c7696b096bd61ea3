import dataclasses
import json

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation import comparison, recipe_draws
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.comparison import Recipe, compare
from cxr_jax.evaluation.comparison_record import RESOLUTION, Correction, read_comparison, write_comparison
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import bootstrap_weights
from cxr_jax.evaluation.measures import Measure, measure
from cxr_jax.evaluation.metrics import METRICS, roc_auc
from cxr_jax.evaluation.operating_point import choose_operating_point
from cxr_jax.evaluation.paired import bootstrap_p_value, compare_auc, difference_over_seeds, holm, mcnemar
from cxr_jax.evaluation.recipe_draws import Ruled
from cxr_jax.evaluation.rule_draws import draw_rule
from cxr_jax.evaluation.seeds import interval_over_seeds, mean_auc_interval
from cxr_jax.runs.predictions import Predictions

QUICK = Confidence(resamples=200)


def table(seed, *, skill=1.5, files=120, grouped=True):
    label = np.arange(files) % 2
    patient = np.random.default_rng(0).normal(size=files)
    own = np.random.default_rng(seed).normal(size=files)
    return Predictions(
        file=[f"{i}.jpeg" for i in range(files)],
        split=["test"] * files,
        group=[f"g{i % 2}-{i // 4}" if grouped else "" for i in range(files)],
        subtype=["virus" if positive else "normal" for positive in label],
        label=label,
        logits=None,
        probability=1 / (1 + np.exp(-(patient + 0.5 * own + skill * (2 * label - 1)))),
    )


def recipe(name, *tables, thresholds=None):
    return Recipe(name, tables, thresholds)


def endpoints(result, first, second):
    return next(pair.endpoints for pair in result.pairs if (pair.first, pair.second) == (first, second))


def test_every_value_of_a_recipe_is_that_of_its_tables(metric_values):
    thresholds = (0.4, 0.6, 0.7)
    good = recipe("good", *(table(s) for s in (1, 2, 3)), thresholds=thresholds)
    result = compare([good, recipe("plain", table(4))], QUICK)
    assert (result.images, result.pneumonia, result.groups) == (120, 60, 60)
    summary = result.recipes["good"]
    assert (summary.seeds, summary.thresholds) == (3, thresholds)
    used = {endpoint.key: endpoint for endpoint in result.endpoints.values()}
    assert set(used) == set(result.endpoints) == set(summary.endpoints)
    assert {endpoint.metric for endpoint in used.values()} == set(METRICS)
    for key, endpoint in used.items():
        at = thresholds if endpoint.at == "operating_point" else (0.5,) * 3
        values = [
            metric_values(t.label, t.probability, threshold)[endpoint.metric]
            for t, threshold in zip(good.tables, at, strict=True)
        ]
        assert summary.endpoints[key].values == pytest.approx(values)
        assert summary.endpoints[key].mean == pytest.approx(np.mean(values))
        assert summary.endpoints[key].deviation == pytest.approx(np.std(values, ddof=1))
    assert summary.endpoints["roc_auc"].as_trained == mean_auc_interval(good.tables)
    areas = summary.endpoints["roc_auc"].values
    assert summary.endpoints["roc_auc"].interval == interval_over_seeds(areas, mean_auc_interval(good.tables))
    entry = summary.endpoints["accuracy@operating_point"]
    assert entry.as_trained.method == "Wilson by groups"
    assert entry.interval.method == "Wilson by groups, t over seeds"
    assert entry.interval.low <= entry.as_trained.low < entry.mean < entry.as_trained.high <= entry.interval.high
    # one seed tells nothing of others
    alone = result.recipes["plain"].endpoints["accuracy@half"]
    assert alone.interval == alone.as_trained
    # a recipe without an operating point has nothing there, and neither has its pair
    assert result.recipes["plain"].thresholds is None
    assert result.recipes["plain"].endpoints["accuracy@operating_point"] is None
    assert endpoints(result, "good", "plain")["accuracy@operating_point"] is None
    assert endpoints(result, "good", "plain")["accuracy@half"].over_seeds is None


def test_every_test_of_a_pair_is_the_one_that_is_named():
    one = recipe("one", *(table(s, skill=2.0) for s in (1, 2, 3)), thresholds=(0.4, 0.6, 0.7))
    two = recipe("two", *(table(s) for s in (4, 5)), thresholds=(0.5, 0.3))
    confidence = Confidence(resamples=300, seed=5, level=0.9)
    found = endpoints(compare([one, two], confidence), "one", "two")
    label, clusters = one.tables[0].label, one.tables[0].clusters()
    scores = [np.stack([t.probability for t in r.tables]) for r in (one, two)]
    auc = compare_auc(label, *scores, clusters, 0.9)
    assert found["roc_auc"].difference == pytest.approx(auc.value)
    assert (found["roc_auc"].p_value, found["roc_auc"].test) == (pytest.approx(auc.p_value), "Obuchowski")
    assert found["roc_auc"].interval == auc.interval
    for key, at in (("half", (0.5,) * 5), ("operating_point", (0.4, 0.6, 0.7, 0.5, 0.3))):
        right = [(t.probability >= a) == label for t, a in zip(one.tables + two.tables, at, strict=True)]
        test = mcnemar(np.array(right[:3]), np.array(right[3:]), clusters)
        assert found[f"accuracy@{key}"].p_value == pytest.approx(test.p_value)
        assert found[f"accuracy@{key}"].only_first_right == pytest.approx(test.only_first_right)
        assert found[f"accuracy@{key}"].test == "McNemar, clustered"
    # specificity by a bootstrap written out: groups drawn with replacement, both recipes on the same draw
    weights = bootstrap_weights(clusters, 2000, np.random.default_rng(5)) * (label == 0)
    negative = np.stack([(s < 0.5) for s in np.concatenate(scores)])
    drawn = weights @ negative.T / weights.sum(axis=1, keepdims=True)
    difference = drawn[:, :3].mean(axis=1) - drawn[:, 3:].mean(axis=1)
    answer = found["specificity@half"]
    assert answer.test == "group bootstrap"
    assert answer.interval.low == pytest.approx(np.quantile(difference, 0.05))
    assert answer.interval.high == pytest.approx(np.quantile(difference, 0.95))
    assert answer.p_value == pytest.approx(
        min(1, 2 * (1 + min(np.sum(difference <= 0), np.sum(difference >= 0))) / 2001)
    )
    # covariances need no more draws than were asked for
    values = negative[:, label == 0].mean(axis=1)
    over_seeds = difference_over_seeds(values[:3], values[3:], np.cov(drawn[:300].T), 0.9)
    assert answer.over_seeds.p_value == pytest.approx(over_seeds.p_value)
    assert answer.over_seeds.interval.low == pytest.approx(over_seeds.interval.low)


def test_p_values_of_one_endpoint_are_adjusted_together():
    recipes = [recipe(n, table(2 * i, skill=s), table(2 * i + 1, skill=s)) for i, (n, s) in enumerate(SKILLS.items())]
    result = compare(recipes, QUICK)
    assert result.correction == Correction("Holm 1979", 3)
    for key in result.endpoints:
        for answers in (
            [pair.endpoints[key] for pair in result.pairs],
            [pair.endpoints[key].over_seeds for pair in result.pairs],
        ):
            assert [a.adjusted_p_value for a in answers] == pytest.approx(holm([a.p_value for a in answers]))


def test_a_comparison_is_written_and_read_back_whole(tmp_path):
    one = recipe("one", table(1), table(2), thresholds=(0.4, 0.6))
    result = compare([one, recipe("two", table(3), table(4), thresholds=(0.3, 0.5)), recipe("three", table(5))], QUICK)
    path = tmp_path / "comparison.json"
    write_comparison(path, result)
    assert read_comparison(path) == result
    path.write_text(path.read_text().replace('"difference"', '"distance"'))
    with pytest.raises(UserError, match=r"comparison\.pairs\[0\]\.endpoints\.roc_auc has no difference.*compare the"):
        read_comparison(path)
    path.write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="another version of cxr_jax: compare the runs again"):
        read_comparison(path)


def ruled(name, seeds, *, skill=1.5, shift=1000):
    """A recipe whose thresholds reach a sensitivity of 90 % on validation tables of its own."""
    validation = tuple(dataclasses.replace(table(shift + seed, skill=skill), split=["val"] * 120) for seed in seeds)
    points = tuple(choose_operating_point(one, rule="sensitivity", target_sensitivity=0.9) for one in validation)
    thresholds = tuple(point.threshold for point in points)
    return Recipe(name, tuple(table(seed, skill=skill) for seed in seeds), thresholds, Ruled(validation, points))


def test_at_the_rule_validation_and_test_are_drawn_together_and_the_threshold_is_set_anew():
    one, two = ruled("one", (1, 2, 3), skill=1.8), ruled("two", (4, 5, 6), skill=1.3)
    result = compare([one, two, recipe("bare", table(7), thresholds=(0.4,))], QUICK)
    found, summary = endpoints(result, "one", "two"), result.recipes["two"].endpoints
    drawn = draw_rule([*one.networks, *two.networks], ["specificity"], QUICK).values["specificity"]
    difference = drawn[:3].mean(axis=0) - drawn[3:].mean(axis=0)
    given, rule = found["specificity@operating_point"], found["specificity@rule"]
    assert rule.difference == given.difference
    assert rule.test == "group bootstrap"
    assert (rule.interval.low, rule.interval.high) == pytest.approx(tuple(np.quantile(difference, [0.025, 0.975])))
    assert rule.p_value == pytest.approx(bootstrap_p_value(difference))
    values = [np.array(result.recipes[name].endpoints["specificity@rule"].values) for name in ("one", "two")]
    assert rule.over_seeds.p_value == pytest.approx(difference_over_seeds(*values, np.cov(drawn)).p_value)
    # accuracy too is tested by draws: McNemar's test takes the calls as given
    assert (found["accuracy@rule"].test, found["accuracy@rule"].only_first_right) == ("group bootstrap", None)
    # what a rule gives on the images is what its threshold gives, but it is less sure
    assert summary["specificity@rule"].values == summary["specificity@operating_point"].values
    widths = [
        np.ptp([entry.as_trained.low, entry.as_trained.high])
        for entry in (summary["specificity@rule"], summary["specificity@operating_point"])
    ]
    assert widths[0] > 1.3 * widths[1]
    assert rule.over_seeds.p_value > given.over_seeds.p_value
    assert result.recipes["bare"].endpoints["specificity@rule"] is None
    assert endpoints(result, "one", "bare")["specificity@rule"] is None
    assert endpoints(result, "one", "bare")["specificity@operating_point"] is not None


def test_a_difference_that_every_draw_shows_is_below_the_resolution_after_correction_or_told_as_bounded():
    recipes = [
        recipe(name, table(i, skill=skill)) for i, (name, skill) in enumerate({"a": 6, "b": 1, "c": 0.9}.items())
    ]
    found = endpoints(compare(recipes, QUICK), "a", "b")
    assert found["specificity@half"].adjusted_p_value < RESOLUTION
    assert found["specificity@half"].smallest_p_value == pytest.approx(2 / 6001)
    assert found["specificity@half"].is_bounded
    # the PR-AUC is drawn no more often than was asked for, and says so
    assert found["average_precision"].smallest_p_value == pytest.approx(2 / 201)
    assert found["average_precision"].is_bounded
    assert found["average_precision"].adjusted_p_value == pytest.approx(3 * 2 / 201)
    assert not endpoints(compare(recipes, QUICK), "b", "c")["specificity@half"].is_bounded
    assert not found["roc_auc"].is_bounded


SKILLS = {"good": 2.5, "plain": 1.5, "poor": 1.0}


def test_with_a_reference_every_other_recipe_is_compared_with_it_alone():
    recipes = [recipe(name, table(i, skill=skill)) for i, (name, skill) in enumerate(SKILLS.items())]
    result = compare(recipes, QUICK, reference="plain")
    assert [(pair.first, pair.second) for pair in result.pairs] == [("good", "plain"), ("poor", "plain")]
    assert result.correction.comparisons == 2
    assert endpoints(result, "good", "plain")["roc_auc"].difference > 0
    with pytest.raises(UserError, match="the reference best is none of the recipes: good, plain, poor"):
        compare(recipes, QUICK, reference="best")


def test_an_interval_for_these_networks_is_the_one_that_a_single_run_is_judged_with():
    one = table(1)
    found = compare([recipe("a", one, thresholds=(0.4,)), recipe("b", one, one)], QUICK).recipes
    alone = measure(one, 0.4, {name: Measure(METRICS[name]) for name in METRICS if name != "roc_auc"}, QUICK)
    for name in ("accuracy", "sensitivity", "specificity", "precision", "negative_predictive_value"):
        assert found["a"].endpoints[f"{name}@operating_point"].interval == alone[name].interval
    # seeds that call alike are as sure as one of them
    assert found["b"].endpoints["specificity@half"].interval == found["a"].endpoints["specificity@half"].interval
    # without an error there is no spread, and yet an interval
    sure = compare([recipe("a", table(1, skill=9), table(2, skill=9))], QUICK).recipes["a"].endpoints["accuracy@half"]
    assert sure.mean == 1 == pytest.approx(sure.interval.high)
    assert 0.9 < sure.interval.low < 0.98
    # what is counted among other images in every seed has no such interval
    summary = compare([recipe("a", table(1), table(2))], QUICK).recipes["a"].endpoints
    assert summary["precision@half"].as_trained.method == "group bootstrap"
    plain = compare([recipe("a", table(1, grouped=False))], QUICK).recipes["a"].endpoints
    assert plain["accuracy@half"].interval.method == "Wilson"


def test_equal_recipes_differ_by_nothing():
    result = compare([recipe("a", table(4), table(5)), recipe("b", table(4), table(5))], QUICK)
    for answer in endpoints(result, "a", "b").values():
        assert answer.difference == 0
        assert answer.p_value in (None, 1)
        assert answer.interval is None
    # one recipe alone is described, and compared with nothing
    alone = compare([recipe("a", table(4))], QUICK)
    assert alone.pairs == ()
    assert alone.correction.comparisons == 0


def test_intervals_of_the_two_methods_agree(monkeypatch):
    recipes = [recipe("a", table(1, skill=2.0)), recipe("b", table(2))]
    formula = endpoints(compare(recipes, QUICK), "a", "b")["roc_auc"]
    monkeypatch.setattr(comparison, "compare_auc", lambda *_: None)
    assert endpoints(compare(recipes, QUICK), "a", "b")["roc_auc"].interval is None
    weights = bootstrap_weights(recipes[0].tables[0].clusters(), 1000, np.random.default_rng(0))
    values = [roc_auc(Cases(r.tables[0].label, r.tables[0].probability, 0.5, weights)) for r in recipes]
    low, high = np.quantile(values[0] - values[1], [0.025, 0.975])
    width = formula.interval.high - formula.interval.low
    assert formula.interval.low == pytest.approx(low, abs=0.2 * width)
    assert formula.interval.high == pytest.approx(high, abs=0.2 * width)


def test_the_operating_point_is_left_out_where_it_is_a_half_everywhere():
    halves = [recipe("a", table(1), thresholds=(0.5,)), recipe("b", table(2), thresholds=(0.5,))]
    assert not [key for key in compare(halves, QUICK).endpoints if "operating_point" in key]
    assert "f1@operating_point" in compare([halves[0], recipe("c", table(3), thresholds=(0.4,))], QUICK).endpoints


def test_without_groups_images_are_resampled_and_the_plain_tests_are_named():
    result = compare([recipe("a", table(1, grouped=False)), recipe("b", table(2, grouped=False))], QUICK)
    found = endpoints(result, "a", "b")
    assert result.groups is None
    assert (found["roc_auc"].test, found["f1@half"].test) == ("DeLong", "bootstrap")
    assert found["accuracy@half"].test == "McNemar, exact"
    assert found["f1@half"].interval.method == "bootstrap"


def test_the_order_of_rows_and_the_size_of_chunks_do_not_matter(monkeypatch):
    one, other = table(1), table(2)
    plain = endpoints(compare([recipe("a", one), recipe("b", other)], QUICK), "a", "b")
    monkeypatch.setattr(recipe_draws, "DRAWS_AT_ONCE", 33)
    shuffled = other.select(np.random.default_rng(0).permutation(120))
    again = endpoints(compare([recipe("a", one), recipe("b", shuffled)], QUICK), "a", "b")
    for key, answer in plain.items():
        assert again[key].difference == pytest.approx(answer.difference)
        assert again[key].p_value == pytest.approx(answer.p_value)
        for end in ("low", "high"):
            assert getattr(again[key].interval, end) == pytest.approx(getattr(answer.interval, end))


def test_one_class_leaves_what_can_be_said(tmp_path):
    tables = [t.select(t.label == 1) for t in (table(1), table(2))]
    result = compare([recipe("a", tables[0]), recipe("b", tables[1])], QUICK)
    json.dumps(result.as_json(), allow_nan=False)
    assert endpoints(result, "a", "b")["roc_auc"] is None
    assert endpoints(result, "a", "b")["specificity@half"] is None
    assert result.recipes["a"].endpoints["specificity@half"] is None
    assert result.recipes["a"].endpoints["sensitivity@half"].mean > 0.5
    write_comparison(tmp_path / "comparison.json", result)
    assert read_comparison(tmp_path / "comparison.json") == result


def test_a_class_in_a_single_group_leaves_auc_without_a_test():
    def rare(seed):
        one = table(seed)
        return one.select(np.r_[np.flatnonzero(one.label == 0), [1, 3]])

    result = compare([recipe("a", rare(1), rare(2)), recipe("b", rare(3), rare(4))], QUICK)
    answer = endpoints(result, "a", "b")["roc_auc"]
    assert (answer.interval, answer.p_value, answer.over_seeds) == (None, None, None)


def test_other_images_and_equal_names_are_refused():
    with pytest.raises(UserError, match=r"a and b are not over the same images: b lacks 119\.jpeg"):
        compare([recipe("a", table(1)), recipe("b", table(2).select(np.arange(119)))], QUICK)
    with pytest.raises(UserError, match="two recipes are called a"):
        compare([recipe("a", table(1)), recipe("a", table(2))], QUICK)
    with pytest.raises(ValueError, match="1 tables with 2 thresholds"):
        Recipe("a", (table(1),), (0.5, 0.5))
    with pytest.raises(ValueError, match="a: no table"):
        Recipe("a", ())
