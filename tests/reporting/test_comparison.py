"""Tables, CSV and figure of a comparison, on runs made up for the purpose."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from cxr_jax.evaluation.comparison import compare
from cxr_jax.reporting import comparison_cells, comparison_csv, comparison_figure, comparison_page, comparison_table
from cxr_jax.reporting.published import PUBLISHED
from cxr_jax.reporting.recipe_records import Costs, read_recipe
from cxr_jax.runs.predictions import write_predictions
from cxr_jax.runs.recipes import find_recipes
from cxr_jax.runs.trained_on import OFFICIAL_TEST
from tests.reporting.compared_runs import QUICK, cells, files_of, predictions, read


@pytest.fixture(scope="module")
def result(records):
    return compare([record.recipe for record in records], QUICK)


def test_the_markdown_has_every_value_of_the_comparison(records, result):
    text = comparison_page.comparison_markdown(result, records, links={"good": "there/good"}, figure="a/b.png")
    assert text.startswith("80 images, 50 of them PNEUMONIA, in 40 groups")
    assert "](a/b.png)" in text
    endpoints = result.recipes["good"].endpoints
    header, _, good, plain = cells(text, "Probabilities")
    assert header == ["Recipe", "Seeds", "ROC-AUC", "PR-AUC", "Brier", "Looks at test"]
    auc = endpoints["roc_auc"]
    ends = f"({auc.interval.low:.3f}–{auc.interval.high:.3f})"
    assert good[:3] == ["[good](there/good)", "3", f"{auc.mean:.3f} ± {auc.deviation:.3f} {ends}"]
    assert (good[-1], plain[0], plain[-1]) == ("1, 2, 1", "plain", "1")
    for title, at, first in (
        ("Calls at threshold 0.5", "half", 1),
        ("Calls at the operating point", "operating_point", 2),
    ):
        header, _, good, _ = cells(text, title)
        names = ["Accuracy, %", "Balanced accuracy, %", "Sensitivity, %", "Specificity, %", "MCC"]
        assert header[first:] == names
        value = endpoints[f"specificity@{at}"]
        assert good[header.index("Specificity, %")].startswith(f"{100 * value.mean:.1f} ± {100 * value.deviation:.1f}")
    assert cells(text, "Calls at the operating point")[2][1].count("<br>") == 2
    assert "that each run fixed before it was evaluated on test (sensitivity 90 % on validation)" in text
    assert cells(text, "Costs")[2][1:] == ["0.00 M", "0.00 G", "41.0", "9.0"]
    assert "Machine: 2 x H900, 2 cores of Slow 3000." in text
    _, _, pair = cells(text, "Differences at threshold 0.5")
    answer = result.pairs[0].endpoints["roc_auc"]
    low, high = (getattr(answer.over_seeds.interval, end) for end in ("low", "high"))
    expected = f"{answer.difference:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    assert pair[:2] == ["good<br>− plain", expected + pair[1][len(expected) :]]
    assert pair[1].count("<br>p ") == 2
    assert "(ROC-AUC: Obuchowski; accuracy: McNemar, clustered, group bootstrap; sensitivity and specificity: " in text
    assert "Retrained: other patients and other seeds" in text
    assert "corrected for" not in text  # one pair needs no correction
    assert "published" not in text


def test_the_operating_point_is_told_for_the_rule_first_and_then_for_these_thresholds(records, result):
    text = comparison_page.comparison_markdown(result, records)
    given, ruled = (result.recipes["plain"].endpoints[f"specificity@{at}"] for at in ("operating_point", "rule"))
    ends = [f"({100 * one.interval.low:.1f}–{100 * one.interval.high:.1f})" for one in (ruled, given)]
    mean = f"{100 * given.mean:.1f} ± {100 * given.deviation:.1f}"
    assert cells(text, "Calls at the operating point")[3][5] == f"{mean}<br>rule {ends[0]}<br>threshold {ends[1]}"
    cell = cells(text, "Differences at the operating point")[2][3]
    first, second = (part.strip("<br>") for part in cell.split("these thresholds"))
    for part, at in ((first, "rule"), (second, "operating_point")):
        answer = result.pairs[0].endpoints[f"specificity@{at}"]
        assert f"({100 * answer.over_seeds.interval.low:+.1f} to".replace("-", "−") in part
        assert part.count("p ") == 2
    assert "not simultaneous" not in text  # one pair
    # the figure draws the interval of the rule
    axes = next(a for a in comparison_figure.comparison_figure(result).axes if a.get_title(loc="left") == "Specificity")
    drawn_ends = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert (ruled.interval.low, ruled.interval.high) in drawn_ends
    assert (given.interval.low, given.interval.high) not in drawn_ends


def test_a_p_value_that_is_only_bounded_is_told_as_such():
    assert comparison_cells.p_text(0.0279, bounded=True) == "< 0.028"
    assert comparison_cells.p_text(0.0279) == "0.028"
    assert comparison_cells.p_text(0.0004) == comparison_cells.p_text(0.0004, bounded=True) == "< 0.001"


def test_thresholds_just_below_one_do_not_look_like_one_and_rules_are_told_apart(records, result):
    recipe = dataclasses.replace(records[0].recipe, thresholds=(0.99997, 1.0, 0.25))
    other = dataclasses.replace(records[1], rule="Youden on validation", chosen_anew=True)
    changed = [dataclasses.replace(records[0], recipe=recipe), other]
    text = comparison_page.comparison_markdown(result, changed)
    assert cells(text, "Calls at the operating point")[2][1] == "0.99997<br>1<br>0.25"
    assert "(good: sensitivity 90 % on validation; plain: Youden on validation)" in text
    assert "chosen for this comparison on the validation predictions" in text


def test_a_correction_counts_the_comparisons_that_were_made_over_seeds_by_themselves(tmp_path):
    for seed in range(3):
        write_predictions(tmp_path / f"good/seed{seed}.csv", predictions(seed, skill=2))
        write_predictions(tmp_path / f"plain/seed{seed}.csv", predictions(3 + seed, skill=1))
    write_predictions(tmp_path / "once.csv", predictions(6, skill=1))
    recipes = find_recipes([str(tmp_path / name) for name in ("good", "plain", "once.csv")])
    records = [read_recipe(entry) for entry in recipes]
    result = compare([record.recipe for record in records], QUICK)
    over_seeds = [pair.endpoints["roc_auc"].over_seeds for pair in result.pairs]
    alone = next(answer for answer in over_seeds if answer is not None)
    assert alone.adjusted_p_value == alone.p_value and over_seeds.count(None) == 2
    text = comparison_page.comparison_markdown(result, records)
    assert "corrected for 3 comparisons a column (1 retrained) by Holm (1979)" in text


def test_single_seeds_say_what_cannot_be_said_and_several_pairs_how_they_were_corrected(tmp_path):
    for seed in range(3):
        write_predictions(tmp_path / f"{seed}.csv", predictions(seed, skill=1 + seed))
    records = [read_recipe(files_of(tmp_path / f"{seed}.csv", name=f"r|{seed}")) for seed in range(3)]
    result = compare([record.recipe for record in records], QUICK)
    text = comparison_page.comparison_markdown(result, records)
    assert "another seed may turn the difference round" in text
    assert "Retrained:" not in text
    assert "corrected for 3 comparisons a column by Holm (1979)" in text
    assert "They are not simultaneous" in text
    assert "## Costs" not in text
    assert "operating point" not in text
    assert r"| r\|0 | 1 |" in text
    answer = result.pairs[0].endpoints["accuracy@half"]
    told = "< 0.001" if answer.adjusted_p_value < 0.001 else f"{answer.adjusted_p_value:.3f}"
    assert cells(text.replace(r"r\|", "r"), "Differences at threshold 0.5")[2][2].endswith(f"<br>p {told} as trained")


def test_machines_that_differ_are_named(records, result):
    other = dataclasses.replace(records[1], costs=Costs(minutes=1.0, machine="8 cores of Fast"))
    text = comparison_page.comparison_markdown(result, [records[0], other])
    assert "Machines differ, so speeds do not compare (good: 2 x H900" in text
    assert cells(text, "Costs")[3] == ["plain", "–", "–", "–", "1.0"]


def test_values_that_do_not_exist_are_a_dash(tmp_path):
    for seed in range(2):
        table = predictions(seed)
        write_predictions(tmp_path / f"{seed}.csv", table.select(table.label == 1))
    records = [read_recipe(files_of(tmp_path / f"{seed}.csv", name=str(seed))) for seed in range(2)]
    result = compare([record.recipe for record in records], QUICK)
    text = comparison_page.comparison_markdown(result, records)
    assert cells(text, "Probabilities")[2][2] == "–"
    assert cells(text, "Differences at threshold 0.5")[2][1] == "–"
    assert "ROC-AUC: not testable" in text
    comparison_figure.comparison_figure(result)


def official(tmp_path):
    counts = {"normals": OFFICIAL_TEST["NORMAL"], "pneumonia": OFFICIAL_TEST["PNEUMONIA"]}
    write_predictions(tmp_path / "mine.csv", predictions(1, **counts))
    record = read_recipe(files_of(tmp_path / "mine.csv", name="mine"))
    return compare([record.recipe], QUICK), [record]


def test_published_results_stand_beside_the_official_test_split_alone(tmp_path, result):
    mine, records = official(tmp_path)
    assert comparison_table.published_beside(mine) == PUBLISHED
    assert comparison_table.published_beside(result) == ()
    assert comparison_table.published_beside(dataclasses.replace(mine, pneumonia=391)) == ()
    text = comparison_page.comparison_markdown(mine, records)
    rows = {row[0]: row for row in cells(text, "Calls at threshold 0.5")}
    assert rows["Barnett 2023, scratch (published)"][1:] == ["78.4", "–", "–", "–", "–"]
    assert rows["Barnett 2023, transfer (published)"][1] == "79.5"
    assert rows["Lee 2024, EfficientNetV2-S (published)"][1:] == ["85.7", "–", "90.0", "78.6", "–"]
    assert cells(text, "Probabilities")[2][:3] == ["Lee 2024, EfficientNetV2-S (published)", "1", "0.905"]
    assert "Differences" not in text


def test_no_figure_of_the_terminal_tables_is_cut_off(records, result):
    text = io.StringIO()
    console = Console(file=text, width=100)
    for table in comparison_page.terminal_tables(result, records):
        console.print(table)
    printed = text.getvalue()
    assert "…" not in printed
    value = result.recipes["plain"].endpoints["roc_auc"]
    assert f"{value.mean:.3f} ± {value.deviation:.3f}" in printed
    assert "Differences at the operating point" in printed


def test_csv_holds_every_number_in_full(records, result):
    recipes = read(comparison_csv.recipes_csv(result))
    assert len(recipes) == 2 * len(result.endpoints)
    for row in recipes:
        at = {"": "", "0.5": "@half", "operating point": "@operating_point", "rule": "@rule"}[row["threshold"]]
        summary = result.recipes[row["recipe"]].endpoints[row["metric"] + at]
        assert float(row["mean"]) == summary.mean
        assert [float(value) for value in row["values"].split()] == pytest.approx(summary.values, rel=1e-5)
        assert row["low"] == ("" if summary.interval is None else str(summary.interval.low))
    pairs = read(comparison_csv.pairs_csv(result))
    assert len(pairs) == len(result.endpoints)
    accuracy = next(row for row in pairs if (row["metric"], row["threshold"]) == ("accuracy", "0.5"))
    answer = result.pairs[0].endpoints["accuracy@half"]
    assert (accuracy["first"], accuracy["second"], accuracy["test"]) == ("good", "plain", "McNemar, clustered")
    for name in ("difference", "p_value", "adjusted_p_value", "only_first_right"):
        assert float(accuracy[name]) == getattr(answer, name)
    assert float(accuracy["low"]) == answer.interval.low
    assert float(accuracy["retrained_high"]) == answer.over_seeds.interval.high
    assert float(accuracy["retrained_p_value"]) == answer.over_seeds.p_value
    costs = read(comparison_csv.costs_csv(records))
    assert (costs[0]["recipe"], costs[0]["looks"], costs[0]["parameters"]) == ("good", "1 2 1", "1234")


def test_csv_leaves_out_what_does_not_exist(tmp_path):
    write_predictions(tmp_path / "a.csv", predictions(1).select(np.arange(30, 80)))
    record = read_recipe(files_of(tmp_path / "a.csv"))
    result = compare([record.recipe], QUICK)
    names = {row["metric"] for row in read(comparison_csv.recipes_csv(result))}
    assert "sensitivity" in names
    assert "roc_auc" not in names
    assert read(comparison_csv.pairs_csv(result)) == []
    assert read(comparison_csv.costs_csv([record]))[0]["minutes"] == ""


def drawn(axes):
    """The points of every line of a panel that has some, by marker."""
    points = {}
    for line in axes.lines:
        if len(line.get_xdata()) and line.get_marker() not in ("None", ""):
            points.setdefault(line.get_marker(), []).extend(float(x) for x in line.get_xdata())
    return points


def test_the_figure_shows_means_and_seeds_of_four_metrics(result):
    figure = comparison_figure.comparison_figure(result)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["ROC-AUC", "Accuracy", "Sensitivity", "Specificity"]
    recipes = result.recipes.values()
    means = [recipe.endpoints["roc_auc"].mean for recipe in recipes]
    seeds = [value for recipe in recipes for value in recipe.endpoints["roc_auc"].values]
    assert drawn(panels["ROC-AUC"]) == {"D": pytest.approx(means), "o": pytest.approx(seeds)}
    squares = [recipe.endpoints["specificity@operating_point"].mean for recipe in recipes]
    assert drawn(panels["Specificity"])["s"] == pytest.approx(squares)
    labels = [label.get_text() for label in panels["ROC-AUC"].get_yticklabels()]
    assert labels == ["good", "plain"]
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == [
        "mean, 95 % interval for other patients and seeds",
        "at threshold 0.5",
        "at the operating point, by its rule",
        "one seed",
    ]


def test_the_figure_marks_published_results(tmp_path):
    mine, _ = official(tmp_path)
    figure = comparison_figure.comparison_figure(mine)
    assert drawn(figure.axes[1])["x"] == pytest.approx([489 / 624, 496 / 624, 535 / 624])
    assert drawn(figure.axes[0])["x"] == [0.905]
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["mean, 95 % interval for other patients", "at threshold 0.5", "published"]
