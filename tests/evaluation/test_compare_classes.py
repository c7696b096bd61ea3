"""Paired differences of recipes of exclusive classes, and of findings."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_points import choose_class_points, fixed_class_points
from cxr_jax.evaluation.compare_classes import ClassRecipe, compare_classes
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.paired import compare_auc, holm, mcnemar
from cxr_jax.runs.class_predictions import ClassPredictions
from cxr_jax.runs.finding_predictions import FindingPredictions

CLASSES = ("normal", "bacteria", "virus")
FINDINGS = ("Effusion", "Mass", "Hernia")
QUICK = Confidence(resamples=200)


def table(kind, seed, *, count=150, skill=1.5, groups=True, split="test"):
    """Predictions of one network; labels and what is hard about an image are equal for all seeds."""
    shared, own = np.random.default_rng(len(split)), np.random.default_rng(seed)
    patient = shared.normal(size=(count, 3))
    if kind is ClassPredictions:
        label = np.arange(count) % 3
        truth, names = np.eye(3)[label], CLASSES
    else:
        label = (shared.random((count, 3)) < (0.4, 0.3, 0.2)).astype(float)
        truth, names = label.copy(), FINDINGS
        label[shared.random(label.shape) < 0.15] = np.nan
    return kind.from_logits(
        patient + 0.5 * own.normal(size=(count, 3)) + skill * truth - 1,
        file=[f"{split}/{i}.png" for i in range(count)],
        split=[split] * count,
        group=[f"g{i // 2}" if groups else "" for i in range(count)],
        classes=names,
        label=label,
    )


def recipe(name, *tables, **others):
    return ClassRecipe(name, tables, **others)


def ruled(kind, name, seeds, **others):
    """A recipe whose points were chosen on validation predictions of each seed."""
    validation = tuple(table(kind, 100 + seed, split="val", **others) for seed in seeds)
    points = tuple(choose_class_points(one, rule="youden") for one in validation)
    return recipe(name, *(table(kind, seed, **others) for seed in seeds), points=points, validation=validation)


def test_exclusive_classes_have_the_figures_of_scikit_learn_and_the_tests_that_are_named():
    good, poor = (recipe(name, *(table(ClassPredictions, s, skill=k) for s in seeds)) for name, seeds, k in PAIR)
    result = compare_classes([good, poor], QUICK)
    first = good.tables[0]
    assert (result.together.images, result.together.groups, result.together.pneumonia) == (150, 75, None)
    for part in (good, poor):
        found = result.together.recipes[part.name].endpoints
        areas = [sk.roc_auc_score(t.label, t.probabilities, multi_class="ovr") for t in part.tables]
        assert found["macro_roc_auc"].values == pytest.approx(areas)
        assert found["accuracy"].values == pytest.approx([sk.accuracy_score(t.label, t.called) for t in part.tables])
        assert found["accuracy"].as_trained.method == "Wilson by groups"
        assert found["log_loss"].values == pytest.approx([sk.log_loss(t.label, t.probabilities) for t in part.tables])
    (pair,) = result.together.pairs
    right = [np.stack([t.called == t.label for t in one.tables]) for one in (good, poor)]
    assert pair.endpoints["accuracy"].p_value == pytest.approx(mcnemar(*right, first.clusters()).p_value)
    macro = pair.endpoints["macro_roc_auc"]
    assert macro.test == "group bootstrap"
    assert macro.interval.low < macro.difference < macro.interval.high
    assert macro.over_seeds.interval.method == "Obuchowski-Rockette"
    assert pair.endpoints["log_loss"].difference < 0
    p_values = []
    for index, name in enumerate(CLASSES):
        part = result.classes[name]
        assert part.pneumonia == 50
        label = (first.label == index).astype(int)
        scores = [np.stack([t.probabilities[:, index] for t in one.tables]) for one in (good, poor)]
        answer = part.pairs[0].endpoints["roc_auc"]
        assert answer.p_value == pytest.approx(compare_auc(label, *scores, first.clusters()).p_value)
        p_values.append(answer.p_value)
        called = part.recipes["good"].endpoints["sensitivity@call"].values
        assert called == pytest.approx([sk.recall_score(label, t.called == index) for t in good.tables])
        # nothing is known of thresholds, so none is made up
        assert {endpoint.at for endpoint in part.endpoints.values()} == {None, "call"}
    adjusted = [result.classes[name].pairs[0].endpoints["roc_auc"].adjusted_p_value for name in CLASSES]
    assert adjusted == pytest.approx(holm(p_values))
    assert {part.correction.comparisons for part in result.classes.values()} == {3}
    assert result.together.correction.comparisons == 1


PAIR = (("good", (1, 2), 2.0), ("poor", (3, 4), 1.0))


def test_findings_are_compared_where_they_are_known():
    good, poor = (recipe(name, *(table(FindingPredictions, s, skill=k) for s in seeds)) for name, seeds, k in PAIR)
    result = compare_classes([good, poor], QUICK)
    areas = []
    for index, name in enumerate(FINDINGS):
        rows = ~np.isnan(good.tables[0].label[:, index])
        label = good.tables[0].label[rows, index].astype(int)
        scores = [np.stack([t.probabilities[rows, index] for t in one.tables]) for one in (good, poor)]
        found = result.classes[name].recipes["good"].endpoints
        areas.append([sk.roc_auc_score(label, score) for score in scores[0]])
        assert found["roc_auc"].values == pytest.approx(areas[-1])
        precision = [sk.average_precision_score(label, score) for score in scores[0]]
        assert found["average_precision"].values == pytest.approx(precision)
        answer = result.classes[name].pairs[0].endpoints["roc_auc"]
        tested = compare_auc(label, *scores, good.tables[0].clusters()[rows])
        assert (answer.p_value, answer.interval) == (pytest.approx(tested.p_value), tested.interval)
        assert "sensitivity@half" in found
    found = result.together.recipes["good"].endpoints["macro_roc_auc"]
    assert found.values == pytest.approx(np.mean(areas, axis=0))
    assert result.together.pairs[0].endpoints["macro_roc_auc"].interval.low > 0


@pytest.mark.parametrize("kind", [ClassPredictions, FindingPredictions])
def test_thresholds_of_each_class_are_taken_as_given_and_by_their_rule(kind):
    one, two = ruled(kind, "one", (1, 2)), ruled(kind, "two", (3,), skill=0.5)
    result = compare_classes([one, two, recipe("bare", table(kind, 9))], QUICK)
    for index, (name, part) in enumerate(result.classes.items()):
        thresholds = tuple(seed.classes[name].threshold for seed in one.points)
        assert part.recipes["one"].thresholds == thresholds
        values = []
        for seed, threshold in zip(one.tables, thresholds, strict=True):
            rows, label = seed.asked(name)
            values.append(sk.accuracy_score(label, seed.probabilities[rows, index] >= threshold))
        found = part.recipes["one"].endpoints
        assert found["accuracy@operating_point"].values == pytest.approx(values)
        assert found["accuracy@rule"].interval is not None
        assert part.recipes["bare"].endpoints["accuracy@operating_point"] is None
    macro = "macro_sensitivity@operating_point"
    assert (macro in result.together.endpoints) == (kind is FindingPredictions)


@given(st.integers(0, 50), st.permutations([0, 1, 2]), st.sampled_from([ClassPredictions, FindingPredictions]))
@settings(max_examples=6, deadline=None)
def test_the_order_of_classes_rows_and_recipes_turns_figures_and_changes_none(seed, order, kind):
    tables = {name: table(kind, seed + s, count=60, skill=k) for name, (s, k) in TWO.items()}
    names = tables["a"].classes
    points = fixed_class_points(names, 0.4)
    rows = np.random.default_rng(seed).permutation(60)
    forth = compare_classes([recipe(n, t, points=(points,)) for n, t in tables.items()], Confidence(resamples=100))
    moved = [
        recipe(name, one.with_classes([names[i] for i in order]).select(rows), points=(points,))
        for name, one in reversed(tables.items())
    ]
    back = compare_classes(moved, Confidence(resamples=100))
    assert list(back.classes) == [names[i] for i in order]
    for name, part in {"": forth.together, **forth.classes}.items():
        other = {"": back.together, **back.classes}[name]
        for key, answer in part.pairs[0].endpoints.items():
            turned = other.pairs[0].endpoints[key]
            assert turned.difference == pytest.approx(-answer.difference, abs=1e-12)
            if answer.p_value is not None:
                assert turned.p_value == pytest.approx(answer.p_value)
            assert turned.adjusted_p_value == pytest.approx(answer.adjusted_p_value)


TWO = {"a": (0, 1.5), "b": (1, 0.5)}


@pytest.mark.parametrize("kind", [ClassPredictions, FindingPredictions])
def test_a_recipe_does_not_differ_from_itself(kind):
    tables = [table(kind, seed) for seed in (1, 2)]
    result = compare_classes([recipe("a", *tables), recipe("b", *tables)], QUICK)
    for part in (result.together, *result.classes.values()):
        for answer in part.pairs[0].endpoints.values():
            assert answer.difference == 0
            assert answer.p_value in (None, 1.0)


def test_findings_that_cannot_be_ranked_are_left_out_and_named():
    tables = [table(FindingPredictions, seed) for seed in (1, 2)]
    label = tables[0].label.copy()
    label[:, 1] = np.nan
    known = [recipe(str(i), dataclasses.replace(one, label=label)) for i, one in enumerate(tables)]
    result = compare_classes(known, QUICK)
    assert (tuple(result.classes), result.left_out) == (("Effusion", "Hernia"), ("Mass",))
    unknown = np.full_like(label, np.nan)
    with pytest.raises(UserError, match="show each of Effusion, Mass, Hernia always or never"):
        compare_classes([recipe("a", dataclasses.replace(tables[0], label=unknown))], QUICK)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda one: one.select(np.arange(149)), "good and poor are not over the same images: poor lacks test/149"),
        (
            lambda one: dataclasses.replace(one, classes=("Effusion", "Mass", "Edema")),
            r"of different classes \(Edema, Hernia in one alone\)",
        ),
        (
            lambda one: dataclasses.replace(one, label=np.nan_to_num(one.label)),
            "good and poor give different labels to",
        ),
        (lambda one: table(ClassPredictions, 2), "one is of classes that exclude each other, the other of findings"),
    ],
)
def test_tables_that_are_not_of_the_same_are_refused(change, sentence):
    one, two = (table(FindingPredictions, seed) for seed in (1, 2))
    with pytest.raises(UserError, match=sentence):
        compare_classes([recipe("good", one), recipe("poor", change(two))], QUICK)
