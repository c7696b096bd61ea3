import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.errors import UserError
from cxr_jax.evaluation import comparison
from cxr_jax.evaluation.comparison import Recipe, compare, compare_auc, holm, mcnemar
from cxr_jax.evaluation.measures import Confidence
from cxr_jax.evaluation.metrics import metric_values
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


def recipe(name, *tables):
    return Recipe(name, tables, (0.5,) * len(tables))


def test_delongs_paired_test_gives_the_published_answer(ovarian):
    """Albumin and total protein against the K-G score: 0.0108 (p 0.9102) and -0.0780 (p 0.4561), SAS/STAT guide."""
    label, scores = ovarian
    ranks = [np.unique(score, return_inverse=True)[1] / 100 for score in scores]
    names = [str(i) for i in range(len(label))]
    albumin, score, protein = (
        Predictions(names, [""] * 43, [""] * 43, ["unknown" if y else "normal" for y in label], label, None, rank)
        for rank in ranks
    )
    first = compare_auc([albumin], [score])
    assert first["difference"] == pytest.approx(0.0108, abs=5e-5)
    assert first["p_value"] == pytest.approx(0.9102, abs=5e-5)
    assert first["interval"]["method"] == "DeLong"
    second = compare_auc([protein], [score])
    assert second["difference"] == pytest.approx(-0.0780, abs=5e-5)
    assert second["p_value"] == pytest.approx(0.4561, abs=5e-5)


def test_mcnemar_is_the_binomial_test_of_the_images_on_which_two_differ():
    label = np.ones(20, int)
    names = [str(i) for i in range(20)]
    right = np.array([1.0] * 20)
    mostly_wrong = np.array([0.0] * 6 + [1.0] * 14)
    one, other = (
        Predictions(names, [""] * 20, [""] * 20, ["virus"] * 20, label, None, p) for p in (right, mostly_wrong)
    )
    answer = mcnemar(one, other, 0.5, 0.5)
    assert (answer["only_first_right"], answer["only_second_right"]) == (6, 0)
    assert answer["p_value"] == pytest.approx(2 / 2**6)
    assert mcnemar(one, one, 0.5, 0.5)["p_value"] == 1
    assert mcnemar(one, other, 0.5, 0.0)["p_value"] == 1


def test_holm_adjusts_as_in_the_book():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(values):
    adjusted = holm(values)
    assert all(a >= v for a, v in zip(adjusted, values, strict=True))
    assert max(adjusted) <= 1
    assert [adjusted[i] for i in np.argsort(values, kind="stable")] == sorted(adjusted)


def test_a_comparison_is_json_and_its_numbers_are_those_of_the_tables():
    recipes = [
        recipe("good", *(table(s, skill=2.5) for s in (1, 2, 3))),
        recipe("plain", table(4), table(5)),
        recipe("same", table(4), table(5)),
    ]
    result = compare(recipes, QUICK)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["images"] == 120
    good = result["recipes"]["good"]
    accuracy = [metric_values(t.label, t.probability, 0.5)["accuracy"] for t in recipes[0].tables]
    assert good["seeds"] == 3
    assert good["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracy))
    assert good["metrics"]["accuracy"]["deviation"] == pytest.approx(np.std(accuracy, ddof=1))
    assert [(pair["first"], pair["second"]) for pair in result["pairs"]] == [
        ("good", "plain"),
        ("good", "same"),
        ("plain", "same"),
    ]
    better, _, equal = result["pairs"]
    difference = good["metrics"]["roc_auc"]["mean"] - result["recipes"]["plain"]["metrics"]["roc_auc"]["mean"]
    assert better["roc_auc"]["difference"] == pytest.approx(difference)
    assert better["differences"]["roc_auc"]["difference"] == pytest.approx(difference)
    assert better["roc_auc"]["interval"]["low"] > 0
    assert better["differences"]["accuracy"]["interval"]["low"] > 0
    assert better["differences"]["accuracy"]["interval"]["method"] == "group bootstrap"
    assert better["roc_auc"]["p_value"] < 0.05
    # Of the three pairs one has no p-value, so two questions were asked.
    assert better["roc_auc"]["adjusted_p_value"] == pytest.approx(2 * better["roc_auc"]["p_value"])
    assert better["mcnemar"] is None
    assert equal["roc_auc"]["difference"] == 0
    assert equal["roc_auc"]["p_value"] is None
    assert equal["differences"]["accuracy"] == {"difference": 0, "interval": None}


def test_intervals_of_the_two_methods_agree():
    result = compare([recipe("a", table(1, skill=2.0)), recipe("b", table(2))], Confidence(resamples=1000))
    pair = result["pairs"][0]
    by_formula, by_bootstrap = pair["roc_auc"]["interval"], pair["differences"]["roc_auc"]["interval"]
    width = by_formula["high"] - by_formula["low"]
    assert by_formula["low"] == pytest.approx(by_bootstrap["low"], abs=0.2 * width)
    assert by_formula["high"] == pytest.approx(by_bootstrap["high"], abs=0.2 * width)


def test_single_runs_also_get_mcnemar_and_adjusted_values():
    result = compare([recipe("a", table(1, skill=2.5)), recipe("b", table(2)), recipe("c", table(3))], QUICK)
    values = [pair["mcnemar"]["p_value"] for pair in result["pairs"]]
    assert [pair["mcnemar"]["adjusted_p_value"] for pair in result["pairs"]] == holm(values)


def test_without_groups_images_are_resampled_and_delong_is_named():
    result = compare([recipe("a", table(1, grouped=False)), recipe("b", table(2, grouped=False))], QUICK)
    pair = result["pairs"][0]
    assert pair["roc_auc"]["interval"]["method"] == "DeLong"
    assert pair["differences"]["f1"]["interval"]["method"] == "bootstrap"


def test_the_order_of_rows_and_the_size_of_chunks_do_not_matter(monkeypatch):
    one, other = table(1), table(2)
    shuffled = other.select(np.random.default_rng(0).permutation(120))
    plain = compare([recipe("a", one), recipe("b", other)], QUICK)
    monkeypatch.setattr(comparison, "_CHUNK", 33)
    again = compare([recipe("a", one), recipe("b", shuffled)], QUICK)
    for name, answer in plain["pairs"][0]["differences"].items():
        assert again["pairs"][0]["differences"][name]["difference"] == pytest.approx(answer["difference"])
        for end in ("low", "high"):
            assert again["pairs"][0]["differences"][name]["interval"][end] == pytest.approx(answer["interval"][end])


def test_one_class_leaves_what_can_be_said():
    tables = [t.select(t.label == 1) for t in (table(1), table(2))]
    result = compare([recipe("a", tables[0]), recipe("b", tables[1])], QUICK)
    json.dumps(result, allow_nan=False)
    assert result["pairs"][0]["roc_auc"] is None
    assert result["recipes"]["a"]["metrics"]["specificity"] is None
    assert result["pairs"][0]["differences"]["specificity"] == {"difference": None, "interval": None}
    assert result["recipes"]["a"]["metrics"]["sensitivity"]["mean"] > 0.5


def test_other_images_and_equal_names_are_refused():
    with pytest.raises(UserError, match=r"a and b are not over the same images: b lacks 119\.jpeg"):
        compare([recipe("a", table(1)), recipe("b", table(2).select(np.arange(119)))], QUICK)
    with pytest.raises(UserError, match="two recipes are called a"):
        compare([recipe("a", table(1)), recipe("a", table(2))], QUICK)
    with pytest.raises(ValueError, match="1 tables with 2 thresholds"):
        Recipe("a", (table(1),), (0.5, 0.5))
